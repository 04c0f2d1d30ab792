"""Reads requests: every bad field is gathered before any is refused."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import (
    BaseModelName,
    DatasetName,
    ModelName,
    ProjectName,
    RunName,
    SnapshotName,
    check_id,
    is_id,
    is_sha256,
)
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.training.domain import (
    PathSource,
    RunSpec,
    Source,
    UploadSource,
)
from enxerto.training.ports import Idempotency
from enxerto.training.service.base_models import base_model_ids, find_base_model
from enxerto.training.v1 import (
    dataset_service_pb2,
    training_run_pb2,
    training_service_pb2,
)
from enxerto.type.v1 import task_pb2
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.finetuning import FinetuneSpec, Optimizer, Strategy, Weights
from enxerto.vision.specs import Task

MAX_WORKERS = 64
_MAX_LABELS = 64
_MAX_LABEL_CHARACTERS = 256
_MAX_REQUEST_ID_CHARACTERS = 128
_MAX_DISPLAY_NAME = 200

_WEIGHTS = {
    training_run_pb2.WEIGHTS_UNSPECIFIED: Weights.PRETRAINED,
    training_run_pb2.WEIGHTS_PRETRAINED: Weights.PRETRAINED,
    training_run_pb2.WEIGHTS_NONE: Weights.NONE,
}
_STRATEGIES = {
    training_run_pb2.STRATEGY_UNSPECIFIED: Strategy.FEATURE_EXTRACTION,
    training_run_pb2.STRATEGY_FEATURE_EXTRACTION: Strategy.FEATURE_EXTRACTION,
    training_run_pb2.STRATEGY_FINE_TUNE: Strategy.FINE_TUNE,
}
_OPTIMIZERS = {
    training_run_pb2.OPTIMIZER_UNSPECIFIED: Optimizer.ADAMW,
    training_run_pb2.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    training_run_pb2.OPTIMIZER_SGD: Optimizer.SGD,
}


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A CreateDataset request."""

    name: DatasetName
    task: Task
    display_name: str
    labels: dict[str, str]
    request: Idempotency | None


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A CreateSnapshot request."""

    parent: DatasetName
    source: Source
    split_seed: int
    request: Idempotency | None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A CreateTrainingRun request."""

    parent: ProjectName
    run_id: str
    spec: RunSpec
    labels: dict[str, str]
    request: Idempotency | None


@dataclass(frozen=True, slots=True)
class ArchiveAnnouncement:
    """The header of an upload."""

    parent: ProjectName
    sha256: str
    size_bytes: int


def new_dataset(request: dataset_service_pb2.CreateDatasetRequest) -> NewDataset:
    """Read a CreateDataset request."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    dataset_id = check_id(request.dataset_id, "dataset_id", violations)
    if request.dataset.task != task_pb2.TASK_CLASSIFICATION:
        violations.add("dataset.task", "must be TASK_CLASSIFICATION")
    if len(request.dataset.display_name) > _MAX_DISPLAY_NAME:
        violations.add("dataset.display_name", f"must have at most {_MAX_DISPLAY_NAME} characters")
    labels = _labels(request.dataset.labels, "dataset.labels", violations)
    key = _idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    name = DatasetName(parent.project, dataset_id)
    return NewDataset(name, Task.CLASSIFICATION, request.dataset.display_name, labels, key)


def new_snapshot(request: dataset_service_pb2.CreateSnapshotRequest) -> NewSnapshot:
    """Read a CreateSnapshot request."""
    violations = Violations()
    parent = DatasetName.check(request.parent, "parent", violations)
    field, given = "snapshot.source", request.snapshot.source
    source: Source = PathSource("")
    match given.WhichOneof("source"):
        case "path":
            if not given.path.startswith("/") or "\0" in given.path:
                violations.add(f"{field}.path", "must be an absolute path")
            source = PathSource(given.path)
        case "upload":
            parts = given.upload.split("/")
            if len(parts) != 4 or parts[::2] != ["projects", "uploads"] or not is_sha256(parts[3]):
                violations.add(f"{field}.upload", "must be a name that UploadArchive returned")
            elif parent is not None and parts[1] != parent.project:
                violations.add(f"{field}.upload", "must be of the same project as the dataset")
            source = UploadSource(parts[-1])
        case _:
            violations.add(field, "needs a path or an upload")
    if given.split_seed < 0:
        violations.add(f"{field}.split_seed", "must not be negative")
    key = _idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    return NewSnapshot(parent, source, given.split_seed, key)


def archive_header(request: dataset_service_pb2.UploadArchiveRequest | None) -> ArchiveAnnouncement:
    """Read the first message of an upload."""
    violations = Violations()
    if request is None or request.WhichOneof("payload") != "header":
        violations.add("header", "must be the first message")
        violations.raise_if_any()
    assert request is not None
    header = request.header
    parent = ProjectName.check(header.parent, "header.parent", violations)
    if not is_sha256(header.sha256):
        violations.add("header.sha256", "must be a lower-case hexadecimal sha256")
    if header.size_bytes <= 0:
        violations.add("header.size_bytes", "must be positive")
    violations.raise_if_any()
    assert parent is not None
    return ArchiveAnnouncement(parent, header.sha256, header.size_bytes)


def archive_chunk(request: dataset_service_pb2.UploadArchiveRequest) -> bytes:
    """Read a later message of an upload."""
    if request.WhichOneof("payload") != "chunk":
        violations = Violations()
        violations.add("payload", "must be a chunk after the header")
        violations.raise_if_any()
    return request.chunk


def new_run(request: training_service_pb2.CreateTrainingRunRequest) -> NewRun:
    """Read a CreateTrainingRun request and fill in the strategy's defaults."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    run_id = request.training_run_id
    if run_id:
        check_id(run_id, "training_run_id", violations)
    prefix, given = "training_run.spec.", request.training_run.spec
    snapshot = SnapshotName.check(given.snapshot, f"{prefix}snapshot", violations)
    model = ModelName.check(given.model, f"{prefix}model", violations)
    for field, name in (("snapshot", snapshot), ("model", model)):
        if name is not None and parent is not None and name.project != parent.project:
            violations.add(f"{prefix}{field}", f"must be of the project {parent}")
    base_model, facts = _base_model(given.base_model, f"{prefix}base_model", violations)
    finetune = _finetune(given, facts.name if facts else "unknown", prefix, violations)
    if facts and finetune.unfreeze_stages > len(facts.stages):
        violations.add(f"{prefix}unfreeze_stages", f"{base_model} has {len(facts.stages)} stages")
    workers = given.num_workers or 1
    if not 1 <= workers <= MAX_WORKERS:
        violations.add(f"{prefix}num_workers", f"must be in 1..{MAX_WORKERS}")
    elif finetune.batch_size < workers:
        violations.add(f"{prefix}batch_size", "must be at least the number of workers")
    labels = _labels(request.training_run.labels, "training_run.labels", violations)
    key = _idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    assert snapshot is not None
    assert model is not None
    assert base_model is not None
    spec = RunSpec(snapshot=snapshot, base_model=base_model, model=model, finetune=finetune, num_workers=workers)
    return NewRun(parent, run_id, spec, labels, key)


def _base_model(text: str, field: str, violations: Violations) -> tuple[BaseModelName | None, BaseModelFacts | None]:
    known = ", ".join(f"baseModels/{one}" for one in base_model_ids())
    name = BaseModelName.try_parse(text)
    facts = find_base_model(name) if name else None
    if facts is None:
        violations.add(field, f"must be one of {known}")
    return name, facts


def _finetune(
    given: training_run_pb2.TrainingSpec, base_model: str, prefix: str, violations: Violations
) -> FinetuneSpec:
    def optional(field: str) -> int | float | None:
        return getattr(given, field) if given.HasField(field) else None  # type: ignore[arg-type]

    def chosen(table: Mapping[int, object], field: str) -> object:
        value = getattr(given, field)
        if value not in table:
            violations.add(f"{prefix}{field}", f"{value} is not a known value")
        return table.get(value, table[0])

    numbers = {
        field: optional(field)
        for field in (
            "epochs",
            "batch_size",
            "learning_rate",
            "backbone_learning_rate_ratio",
            "weight_decay",
            "warmup_fraction",
            "unfreeze_stages",
            "early_stopping_patience",
        )
    }
    spec = FinetuneSpec.with_defaults(
        base_model,
        weights=chosen(_WEIGHTS, "weights"),  # type: ignore[arg-type]
        strategy=chosen(_STRATEGIES, "strategy"),  # type: ignore[arg-type]
        optimizer=chosen(_OPTIMIZERS, "optimizer"),  # type: ignore[arg-type]
        augment=given.augment,
        seed=given.seed,
        **numbers,  # type: ignore[arg-type]
    )
    spec.validate(violations, prefix)
    return spec


def run_name(text: str) -> RunName:
    """Read the name of a run."""
    return RunName.parse(text)


def watch(request: training_service_pb2.WatchTrainingRunRequest) -> tuple[RunName, int]:
    """Read a WatchTrainingRun request: the run and the last cursor seen."""
    violations = Violations()
    name = RunName.check(request.name, "name", violations)
    if request.after_cursor < 0:
        violations.add("after_cursor", "must not be negative")
    violations.raise_if_any()
    assert name is not None
    return name, request.after_cursor


def project_page(parent: str, page_size: int, page_token: str) -> tuple[ProjectName, PageRequest]:
    """Read the common fields of a List request below a project."""
    violations = Violations()
    name = ProjectName.check(parent, "parent", violations)
    page = page_request(page_size, page_token, violations)
    violations.raise_if_any()
    assert name is not None
    return name, page


def dataset_page(request: dataset_service_pb2.ListSnapshotsRequest) -> tuple[DatasetName, PageRequest]:
    """Read a ListSnapshots request."""
    violations = Violations()
    name = DatasetName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    assert name is not None
    return name, page


def catalogue_page(request: training_service_pb2.ListBaseModelsRequest) -> PageRequest:
    """Read a ListBaseModels request."""
    violations = Violations()
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    return page


def _labels(given: Mapping[str, str], field: str, violations: Violations) -> dict[str, str]:
    labels = dict(given)
    if len(labels) > _MAX_LABELS:
        violations.add(field, f"must have at most {_MAX_LABELS} entries")
    for key, value in labels.items():
        if not is_id(key) or len(value) > _MAX_LABEL_CHARACTERS:
            violations.add(
                f"{field}[{key[:80]!r}]", f"the key must be an id, the value at most {_MAX_LABEL_CHARACTERS} long"
            )
    return labels


def _idempotency(
    request: dataset_service_pb2.CreateDatasetRequest
    | dataset_service_pb2.CreateSnapshotRequest
    | training_service_pb2.CreateTrainingRunRequest,
    violations: Violations,
) -> Idempotency | None:
    if len(request.request_id) > _MAX_REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
        violations.add("request_id", f"must be at most {_MAX_REQUEST_ID_CHARACTERS} printable characters")
    if not request.request_id:
        return None
    return Idempotency(request.request_id, _fingerprint(request))


def _fingerprint(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
