"""Domain values as clients see them."""

from google.protobuf.duration_pb2 import Duration

from enxerto.runtime.timestamps import timestamp
from enxerto.training.converters.fields import status_to_proto
from enxerto.training.domain import (
    EpochCompleted,
    LogLine,
    Metric,
    Progress,
    RunEvent,
    RunSpec,
    StateChanged,
    TrainingRun,
)
from enxerto.training.service.base_models import base_model_id
from enxerto.training.v1 import (
    base_model_pb2,
    training_run_pb2,
)
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2
from enxerto.vision.catalogue import BaseModelFacts


def run_to_proto(run: TrainingRun) -> training_run_pb2.TrainingRun:
    """A run as clients see it."""
    return training_run_pb2.TrainingRun(
        name=str(run.name),
        spec=_spec_to_proto(run.spec),
        state=training_run_pb2.TrainingRun.State.Value(f"STATE_{run.state.value}"),
        error=status_to_proto(run.error),
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
                    state=state, error=status_to_proto(change.error), model_version=change.model_version
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
