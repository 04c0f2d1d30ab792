"""Between the training contract and the domain. Every bad field of a request is gathered before any is refused."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

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
from enxerto.runtime.timestamps import timestamp
from enxerto.training.domain import (
    Dataset,
    EpochCompleted,
    LogLine,
    Metric,
    PathSource,
    Progress,
    RunEvent,
    RunSpec,
    Snapshot,
    Source,
    StateChanged,
    TrainingRun,
    UploadSource,
)
from enxerto.training.ports import Idempotency
from enxerto.training.service.base_models import base_model_id, base_model_ids, find_base_model
from enxerto.training.v1 import (
    base_model_pb2,
    dataset_pb2,
    dataset_service_pb2,
    training_run_pb2,
    training_service_pb2,
)
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.specs import FinetuneSpec, Optimizer, Strategy, Task, Weights

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


def dataset_to_proto(dataset: Dataset) -> dataset_pb2.Dataset:
    """A dataset as clients see it."""
    latest = f"{dataset.name}/snapshots/{dataset.latest_ready}" if dataset.latest_ready else ""
    return dataset_pb2.Dataset(
        name=str(dataset.name),
        display_name=dataset.display_name,
        task=task_pb2.TASK_CLASSIFICATION,
        labels=dict(dataset.labels),
        latest_snapshot=latest,
        create_time=timestamp(dataset.create_time),
        update_time=timestamp(dataset.update_time),
        etag=f'"{dataset.revision}"',
    )


def snapshot_to_proto(snapshot: Snapshot) -> dataset_pb2.Snapshot:
    """A snapshot as clients see it."""
    source = dataset_pb2.SnapshotSource(split_seed=snapshot.split_seed)
    if isinstance(snapshot.source, PathSource):
        source.path = snapshot.source.path
    else:
        source.upload = upload_name(snapshot.name.project, snapshot.source.sha256)
    kinds = dataset_pb2.Finding.Severity
    content = snapshot.content
    return dataset_pb2.Snapshot(
        name=str(snapshot.name),
        state=dataset_pb2.Snapshot.State.Value(f"STATE_{snapshot.state.value}"),
        source=source,
        error=_status(snapshot.error),
        findings=[
            dataset_pb2.Finding(
                severity=kinds.Value("SEVERITY_ERROR" if one.is_error else "SEVERITY_WARNING"),
                path=one.path,
                code=one.code,
                message=one.message,
            )
            for one in snapshot.findings
        ],
        finding_count=snapshot.finding_count,
        digest=content.digest if content else "",
        class_names=content.class_names if content else (),
        split_counts=dict(content.split_counts) if content else {},
        size_bytes=content.size_bytes if content else 0,
        create_time=timestamp(snapshot.create_time),
        update_time=timestamp(snapshot.update_time),
        etag=f'"{snapshot.revision}"',
    )


def upload_name(project: str, sha256: str) -> str:
    """The name that UploadArchive returns."""
    return f"projects/{project}/uploads/{sha256}"


def run_to_proto(run: TrainingRun) -> training_run_pb2.TrainingRun:
    """A run as clients see it."""
    return training_run_pb2.TrainingRun(
        name=str(run.name),
        spec=_spec_to_proto(run.spec),
        state=training_run_pb2.TrainingRun.State.Value(f"STATE_{run.state.value}"),
        error=_status(run.error),
        progress=_progress(run.progress) if run.progress else None,
        metrics=[_metric(one) for one in run.metrics],
        model_version=run.model_version,
        stop_reason=run.stop_reason,
        labels=dict(run.labels),
        create_time=timestamp(run.create_time),
        start_time=timestamp(run.start_time),
        end_time=timestamp(run.end_time),
        update_time=timestamp(run.update_time),
        etag=f'"{run.revision}"',
    )


def _spec_to_proto(spec: RunSpec) -> training_run_pb2.TrainingSpec:
    tune = spec.finetune
    return training_run_pb2.TrainingSpec(
        snapshot=str(spec.snapshot),
        base_model=str(spec.base_model),
        weights=training_run_pb2.Weights.Value(f"WEIGHTS_{tune.weights.value}"),
        strategy=training_run_pb2.Strategy.Value(f"STRATEGY_{tune.strategy.value}"),
        model=str(spec.model),
        epochs=tune.epochs,
        batch_size=tune.batch_size,
        learning_rate=tune.learning_rate,
        backbone_learning_rate_ratio=tune.backbone_learning_rate_ratio,
        weight_decay=tune.weight_decay,
        optimizer=training_run_pb2.Optimizer.Value(f"OPTIMIZER_{tune.optimizer.value}"),
        warmup_fraction=tune.warmup_fraction,
        unfreeze_stages=tune.unfreeze_stages,
        early_stopping_patience=tune.early_stopping_patience,
        augment=tune.augment,
        seed=tune.seed,
        num_workers=spec.num_workers,
    )


def event_to_proto(event: RunEvent) -> training_run_pb2.TrainingEvent:
    """An event as watchers see it."""
    result = training_run_pb2.TrainingEvent(cursor=event.cursor, event_time=timestamp(event.time))
    match event.body:
        case StateChanged() as change:
            state = training_run_pb2.TrainingRun.State.Value(f"STATE_{change.state.value}")
            result.state_changed.CopyFrom(
                training_run_pb2.StateChanged(
                    state=state, error=_status(change.error), model_version=change.model_version
                )
            )
        case Progress() as progress:
            result.progress.CopyFrom(_progress(progress))
        case EpochCompleted() as epoch:
            result.epoch_completed.CopyFrom(
                training_run_pb2.EpochCompleted(
                    progress=_progress(epoch.progress),
                    metrics=[_metric(one) for one in epoch.metrics],
                    learning_rate=epoch.learning_rate,
                )
            )
        case LogLine() as line:
            result.log_line.severity, result.log_line.message = line.severity, line.message
    return result


def _progress(progress: Progress) -> training_run_pb2.Progress:
    eta = None
    if progress.eta_s is not None:
        eta = Duration()
        eta.FromNanoseconds(int(progress.eta_s * 1e9))
    return training_run_pb2.Progress(
        phase=progress.phase,
        epoch=progress.epoch,
        epoch_count=progress.epoch_count,
        images_done=progress.images_done,
        image_count=progress.image_count,
        images_per_second=progress.images_per_second,
        eta=eta,
    )


def _metric(metric: Metric) -> metric_pb2.Metric:
    return metric_pb2.Metric(name=metric.name, value=metric.value, split=metric.split)


def _status(error: bytes | None) -> Status | None:
    return None if error is None else Status.FromString(error)


def base_model_to_proto(facts: BaseModelFacts) -> base_model_pb2.BaseModel:
    """A base model as clients see it."""
    return base_model_pb2.BaseModel(
        name=f"baseModels/{base_model_id(facts)}",
        display_name=facts.title,
        task=task_pb2.TASK_CLASSIFICATION,
        library=facts.library.partition("/")[0],
        licence=f"{facts.licence}: {facts.licence_note}",
        parameter_count=facts.parameters,
        feature_dim=facts.feature_dim,
        stages=facts.stages,
        preprocess=tensor_pb2.PreprocessSpec(**facts.preprocess.to_json()),
        offline=facts.works_offline,
    )
