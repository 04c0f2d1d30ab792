"""Domain values as clients see them."""

from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

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
    StateChanged,
    TrainingRun,
)
from enxerto.training.service.base_models import base_model_id
from enxerto.training.v1 import (
    base_model_pb2,
    dataset_pb2,
    training_run_pb2,
)
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2
from enxerto.vision.catalogue import BaseModelFacts


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
