"""Domain values as plain JSON, for SQL columns and for the objects that jobs write."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any

from enxerto.kernel.names import BaseModelName, ModelName, SnapshotName
from enxerto.training.domain import (
    Checkpoint,
    CheckpointSaved,
    EpochCompleted,
    EventBody,
    JobBody,
    JobFailed,
    JobStarted,
    JobTrained,
    Lineage,
    LogLine,
    Metric,
    Parity,
    PathSource,
    Progress,
    ResultArtifact,
    RunSpec,
    RunState,
    Source,
    StateChanged,
    TrainingResult,
    UploadSource,
    UriSource,
)
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.specs import LabelMap, PreprocessSpec, TensorSpec

Json = Mapping[str, Any]

_KINDS: dict[str, type] = {
    "state": StateChanged,
    "progress": Progress,
    "epoch": EpochCompleted,
    "log": LogLine,
    "checkpoint": CheckpointSaved,
    "started": JobStarted,
    "trained": JobTrained,
    "failed": JobFailed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def body_to_json(body: EventBody | JobBody) -> dict[str, Any]:
    """An event's body with its kind."""
    value = asdict(body)
    if value.get("error") is not None:
        value["error"] = base64.b64encode(value["error"]).decode()
    return {"kind": _NAMES[type(body)], **value}


def _body(value: Json) -> Any:
    fields = dict(value)
    kind = _KINDS[fields.pop("kind")]
    if fields.get("error") is not None:
        fields["error"] = base64.b64decode(fields["error"])
    if kind is StateChanged:
        fields["state"] = RunState(fields["state"])
    if kind is EpochCompleted:
        fields["progress"] = progress_from_json(fields["progress"])
        fields["metrics"] = metrics_from_json(fields["metrics"])
    return kind(**_known(kind, fields))


def _known(kind: Any, fields: Json) -> dict[str, Any]:
    """Without what a newer worker says beside what is known here: the two are not replaced at the same moment."""
    names = {one.name for one in fields_of(kind)}
    return {name: value for name, value in fields.items() if name in names}


def progress_from_json(value: Json) -> Progress:
    """The reverse of `asdict` over progress."""
    return Progress(**_known(Progress, value))


def event_body(value: Json) -> EventBody:
    """The reverse of `body_to_json` for what watchers see; raises ValueError."""
    body = _body(value)
    if not isinstance(body, StateChanged | Progress | EpochCompleted | LogLine | CheckpointSaved):
        raise ValueError(f"{value['kind']!r} is not an event of a run")
    return body


def job_body(value: Json) -> JobBody:
    """The reverse of `body_to_json` for what jobs write; raises ValueError, KeyError or TypeError."""
    body = _body(value)
    known = JobStarted | Progress | EpochCompleted | LogLine | CheckpointSaved | JobTrained | JobFailed
    if not isinstance(body, known):
        raise ValueError(f"{value['kind']!r} is not an event of a job")
    return body


def metrics_from_json(values: Any) -> tuple[Metric, ...]:
    """The reverse of `asdict` over metrics."""
    return tuple(
        Metric(str(one["name"]), float(one["value"]), str(one["split"]), str(one.get("class_name", "")))
        for one in values
    )


def checkpoint_to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Where a run can go on from."""
    return {**asdict(checkpoint), "time": checkpoint.time.isoformat()}


def checkpoint_from_json(value: Json) -> Checkpoint:
    """The reverse of `checkpoint_to_json`."""
    return Checkpoint(**{**value, "time": datetime.fromisoformat(value["time"])})


def spec_to_json(spec: RunSpec) -> dict[str, Any]:
    """A run's spec."""
    return {
        "snapshot": str(spec.snapshot),
        "base_model": str(spec.base_model),
        "model": str(spec.model),
        "finetune": spec.finetune.to_json(),
        "num_workers": spec.num_workers,
    }


def spec_from_json(value: Json) -> RunSpec:
    """The reverse of `spec_to_json`."""
    return RunSpec(
        snapshot=SnapshotName.parse(value["snapshot"]),
        base_model=BaseModelName.parse(value["base_model"]),
        model=ModelName.parse(value["model"]),
        finetune=FinetuneSpec.from_json(value["finetune"]),
        num_workers=int(value["num_workers"]),
    )


def source_to_json(source: Source) -> dict[str, Any]:
    """Where a snapshot's images come from."""
    return asdict(source)


def source_from_json(value: Json) -> Source:
    """The reverse of `source_to_json`."""
    if "uri" in value:
        return UriSource(value["uri"])
    return PathSource(value["path"]) if "path" in value else UploadSource(value["sha256"])


def result_to_json(result: TrainingResult) -> dict[str, Any]:
    """What a job leaves behind."""
    return {**asdict(result), "preprocess": result.preprocess.to_json(), "label_map": list(result.label_map.names)}


def result_from_json(value: Json) -> TrainingResult:
    """The reverse of `result_to_json`; raises ValueError, KeyError or TypeError."""

    def tensors(key: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(one["name"], one["datatype"], tuple(one["shape"])) for one in value[key])

    parity = value["parity"]
    return TrainingResult(
        artifacts=tuple(ResultArtifact(**one) for one in value["artifacts"]),
        label_map=LabelMap(tuple(value["label_map"])),
        preprocess=PreprocessSpec.from_json(value["preprocess"]),
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
        metrics=metrics_from_json(value["metrics"]),
        parity=None if parity is None else Parity(**{**parity, "batch_sizes": tuple(parity["batch_sizes"])}),
        lineage=Lineage(**value["lineage"]),
        stop_reason=str(value["stop_reason"]),
        files=tuple(ResultArtifact(**one) for one in value["files"]),
    )
