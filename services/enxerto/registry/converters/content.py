"""The content of a version: wire to domain, with every bad field named."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import BaseModelName, ResourceName, RunName, SnapshotName, is_sha256
from enxerto.registry.domain import Artifact, Lineage, Metric, Parity, Role, VersionContent
from enxerto.registry.v1 import model_version_pb2 as pb
from enxerto.type.v1 import metric_pb2, tensor_pb2
from enxerto.vision.specs import LabelMap, PreprocessSpec, Resize, TensorSpec

_MAX_ARTIFACTS = 100
_MAX_FILENAME_BYTES = 255
_MAX_CLASSES = 100_000
_MAX_CLASS_NAME = 500
_MAX_LABELS = 64
_MAX_LABEL_VALUE = 500
_MAX_METRICS = 20_000
_MAX_TENSORS = 100
_MAX_TEXT = 500
# As large as `PreprocessSpec` allows.
_MAX_SIDE = 4096
_LABEL_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)
_SPLITS = ("train", "val", "test")
_DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64",
    "BYTES",
)  # fmt: skip
_ROLES = {pb.Artifact.ROLE_MODEL: Role.MODEL, pb.Artifact.ROLE_REPORT: Role.REPORT, pb.Artifact.ROLE_OTHER: Role.OTHER}
_PATH = "model_version"


def version_content(version: pb.ModelVersion, violations: Violations) -> VersionContent | None:
    """What a request says of a new version, or None when it noted violations."""
    before = len(violations)
    for name in ("label_map", "preprocess", "lineage"):
        if not version.HasField(name):
            violations.add(f"{_PATH}.{name}", "is required")
    artifacts = _artifacts(version.artifacts, violations)
    label_map = _label_map(version.label_map, violations) if version.HasField("label_map") else None
    preprocess = _preprocess(version.preprocess, violations) if version.HasField("preprocess") else None
    inputs = _tensors(version.inputs, f"{_PATH}.inputs", violations)
    outputs = _tensors(version.outputs, f"{_PATH}.outputs", violations)
    metrics = _metrics(version.metrics, violations)
    parity = _parity(version.parity, violations) if version.HasField("parity") else None
    lineage = _lineage(version.lineage, violations)
    check_labels(version.labels, f"{_PATH}.labels", violations)
    if len(violations) > before or label_map is None or preprocess is None:
        return None
    return VersionContent(
        artifacts, label_map, preprocess, inputs, outputs, lineage, metrics, parity, dict(version.labels)
    )


def check_labels(labels: Mapping[str, str], path: str, violations: Violations) -> None:
    """Note what is wrong with free key-value pairs."""
    if len(labels) > _MAX_LABELS:
        violations.add(path, f"must be at most {_MAX_LABELS} pairs")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            rule = (
                "must be 1 to 63 lower-case letters, digits, '.', '_', '/' and '-', with a letter or digit at the ends"
            )
            violations.add(f"{path}[{key!r}]", f"the key {rule}")
        if len(value) > _MAX_LABEL_VALUE:
            violations.add(f"{path}[{key!r}]", f"the value must have at most {_MAX_LABEL_VALUE} characters")


def _artifacts(items: Sequence[pb.Artifact], violations: Violations) -> tuple[Artifact, ...]:
    path = f"{_PATH}.artifacts"
    if len(items) > _MAX_ARTIFACTS:
        violations.add(path, f"must be at most {_MAX_ARTIFACTS}")
    if sum(item.role == pb.Artifact.ROLE_MODEL for item in items) != 1:
        violations.add(path, "exactly one must have the role ROLE_MODEL")
    artifacts = []
    for index, item in enumerate(items):
        name = item.filename
        if not name or name in (".", "..") or len(name.encode()) > _MAX_FILENAME_BYTES:
            violations.add(f"{path}[{index}].filename", f"must be a file name of 1 to {_MAX_FILENAME_BYTES} bytes")
        elif "/" in name or "\\" in name or not name.isprintable():
            violations.add(f"{path}[{index}].filename", "must be printable, without folders")
        role = _ROLES.get(item.role)
        if role is None:
            violations.add(f"{path}[{index}].role", "must be ROLE_MODEL, ROLE_REPORT or ROLE_OTHER")
        if not is_sha256(item.sha256):
            violations.add(f"{path}[{index}].sha256", "must be 64 lower-case hexadecimal digits")
        if item.media_type and not (_MEDIA_TYPE.fullmatch(item.media_type) and len(item.media_type) <= _MAX_TEXT):
            violations.add(f"{path}[{index}].media_type", "must be an IANA media type, such as text/html")
        artifacts.append(Artifact(name, role or Role.OTHER, item.sha256, item.media_type))
    _check_unique([item.filename for item in items], path, "filename", violations)
    return tuple(artifacts)


_RESIZES = {
    tensor_pb2.PreprocessSpec.RESIZE_UNSPECIFIED: Resize.CENTER_CROP,
    **{tensor_pb2.PreprocessSpec.Resize.Value(f"RESIZE_{one.value}"): one for one in Resize},
}


def _label_map(item: tensor_pb2.LabelMap, violations: Violations) -> LabelMap | None:
    path, before = f"{_PATH}.label_map.names", len(violations)
    if not 1 <= len(item.names) <= _MAX_CLASSES:
        violations.add(path, f"must be 1 to {_MAX_CLASSES} names")
    for index, name in enumerate(item.names):
        if not 1 <= len(name) <= _MAX_CLASS_NAME:
            violations.add(f"{path}[{index}]", f"must have 1 to {_MAX_CLASS_NAME} characters")
    _check_unique(item.names, path, "", violations)
    return LabelMap(tuple(item.names)) if len(violations) == before else None


def _preprocess(item: tensor_pb2.PreprocessSpec, violations: Violations) -> PreprocessSpec | None:
    path, before = f"{_PATH}.preprocess", len(violations)
    for name, value in (("height", item.height), ("width", item.width)):
        if not 1 <= value <= _MAX_SIDE:
            violations.add(f"{path}.{name}", f"must be in 1..{_MAX_SIDE}")
    if not 0 < item.crop_fraction <= 1:
        violations.add(f"{path}.crop_fraction", "must be in (0, 1]")
    if item.interpolation not in ("bilinear", "bicubic"):
        violations.add(f"{path}.interpolation", "must be bilinear or bicubic")
    if item.resize not in _RESIZES:
        violations.add(f"{path}.resize", f"{item.resize} is not a known value")
    elif _RESIZES[item.resize] is not Resize.CENTER_CROP and item.crop_fraction != 1:
        violations.add(f"{path}.crop_fraction", "must be 1 without a centre crop")
    if len(item.mean) != 3 or not _all_finite(item.mean):
        violations.add(f"{path}.mean", "must be three finite numbers")
    if len(item.std) != 3 or not (_all_finite(item.std) and min(item.std) > 0):
        violations.add(f"{path}.std", "must be three positive finite numbers")
    if len(violations) > before:
        return None
    return PreprocessSpec.from_json(
        {
            "height": item.height,
            "width": item.width,
            "crop_fraction": item.crop_fraction,
            "interpolation": item.interpolation,
            "mean": list(item.mean),
            "std": list(item.std),
            "resize": _RESIZES[item.resize],
        }
    )


def _tensors(items: Sequence[tensor_pb2.TensorSpec], path: str, violations: Violations) -> tuple[TensorSpec, ...]:
    if not 1 <= len(items) <= _MAX_TENSORS:
        violations.add(path, f"must be 1 to {_MAX_TENSORS}")
    for index, item in enumerate(items):
        if not 1 <= len(item.name) <= _MAX_TEXT:
            violations.add(f"{path}[{index}].name", f"must have 1 to {_MAX_TEXT} characters")
        if item.datatype not in _DATATYPES:
            violations.add(f"{path}[{index}].datatype", f"must be one of {', '.join(_DATATYPES)}")
        if any(size < 1 and size != -1 for size in item.shape):
            violations.add(f"{path}[{index}].shape", "must be positive sizes, or -1 where an axis is dynamic")
    _check_unique([item.name for item in items], path, "name", violations)
    return tuple(TensorSpec(item.name, item.datatype, tuple(item.shape)) for item in items)


def _metrics(items: Sequence[metric_pb2.Metric], violations: Violations) -> tuple[Metric, ...]:
    path = f"{_PATH}.metrics"
    if len(items) > _MAX_METRICS:
        violations.add(path, f"must be at most {_MAX_METRICS}")
    for index, item in enumerate(items):
        if not _METRIC.fullmatch(item.name):
            violations.add(f"{path}[{index}].name", "must be snake case, such as f1_macro, of at most 63 characters")
        if not math.isfinite(item.value):
            violations.add(f"{path}[{index}].value", "must be finite")
        if item.split not in _SPLITS:
            violations.add(f"{path}[{index}].split", f"must be one of {', '.join(_SPLITS)}")
        if len(item.class_name) > _MAX_CLASS_NAME:
            violations.add(f"{path}[{index}].class_name", f"must have at most {_MAX_CLASS_NAME} characters")
    _check_unique([f"{item.split} {item.name} {item.class_name}" for item in items], path, "name", violations)
    return tuple(Metric(item.name, item.value, item.split, item.class_name) for item in items)


def _parity(item: pb.Parity, violations: Violations) -> Parity:
    path = f"{_PATH}.parity"
    if not (math.isfinite(item.max_abs_difference) and item.max_abs_difference >= 0):
        violations.add(f"{path}.max_abs_difference", "must be finite and not negative")
    if not 0 <= item.agreement <= 1:
        violations.add(f"{path}.agreement", "must be in [0, 1]")
    if item.sample_count < 1:
        violations.add(f"{path}.sample_count", "must be positive")
    if any(size < 1 for size in item.batch_sizes) or len(item.batch_sizes) > _MAX_TENSORS:
        violations.add(f"{path}.batch_sizes", f"must be at most {_MAX_TENSORS} positive numbers")
    return Parity(item.max_abs_difference, item.agreement, item.sample_count, tuple(item.batch_sizes))


def _lineage(item: pb.Lineage, violations: Violations) -> Lineage:
    path = f"{_PATH}.lineage"
    names: tuple[tuple[str, str, type[ResourceName]], ...] = (
        ("snapshot", item.snapshot, SnapshotName),
        ("base_model", item.base_model, BaseModelName),
        ("training_run", item.training_run, RunName),
    )
    for name, text, kind in names:
        if text:
            kind.check(text, f"{path}.{name}", violations)
    for name, text in (("snapshot_digest", item.snapshot_digest), ("weights_digest", item.weights_digest)):
        if text and not is_sha256(text):
            violations.add(f"{path}.{name}", "must be 64 lower-case hexadecimal digits")
    for name, text in (("weights_source", item.weights_source), ("licence", item.licence)):
        if len(text) > _MAX_TEXT:
            violations.add(f"{path}.{name}", f"must have at most {_MAX_TEXT} characters")
    return Lineage(
        snapshot=item.snapshot,
        snapshot_digest=item.snapshot_digest,
        base_model=item.base_model,
        weights_digest=item.weights_digest,
        weights_source=item.weights_source,
        licence=item.licence,
        training_run=item.training_run,
    )


def _check_unique(values: Collection[str], path: str, member: str, violations: Violations) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            violations.add(f"{path}[{index}]" + (f".{member}" if member else ""), f"{value!r} is there twice")
        seen.add(value)


def _all_finite(values: Iterable[float]) -> bool:
    return all(math.isfinite(value) for value in values)
