"""Training runs and their events, between the contract and the domain."""

from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ProjectName, RunFileName, RunName, check_id
from enxerto.runtime.timestamps import duration, timestamp
from enxerto.training.converters.fields import idempotency, read_labels, status_to_proto
from enxerto.training.converters.specs import SpecReader, spec_to_proto
from enxerto.training.domain import (
    Checkpoint,
    CheckpointSaved,
    EpochCompleted,
    LogLine,
    Metric,
    Progress,
    QueueStatus,
    RunEvent,
    RunSpec,
    StateChanged,
    TrainingRun,
)
from enxerto.training.ports import Idempotency
from enxerto.training.v1 import training_run_pb2, training_service_pb2
from enxerto.type.v1 import metric_pb2


@dataclass(frozen=True, slots=True)
class NewRun:
    """A CreateTrainingRun request."""

    parent: ProjectName
    run_id: str
    spec: RunSpec
    labels: dict[str, str]
    request: Idempotency | None


def new_run(request: training_service_pb2.CreateTrainingRunRequest) -> NewRun:
    """Read a CreateTrainingRun request and fill in the defaults."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    run_id = request.training_run_id
    if run_id:
        check_id(run_id, "training_run_id", violations)
    spec = SpecReader(request.training_run.spec, "training_run.spec.", violations).read(parent)
    labels = read_labels(request.training_run.labels, "training_run.labels", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    assert spec is not None
    return NewRun(parent, run_id, spec, labels, key)


def estimated_spec(request: training_service_pb2.EstimateTrainingRunRequest) -> tuple[ProjectName, RunSpec]:
    """Read an EstimateTrainingRun request."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    spec = SpecReader(request.spec, "spec.", violations).read(parent)
    violations.raise_if_any()
    assert parent is not None
    assert spec is not None
    return parent, spec


def run_name(text: str) -> RunName:
    """Read the name of a run."""
    return RunName.parse(text)


def run_file_name(text: str) -> RunFileName:
    """Read the name of a run's file."""
    return RunFileName.parse(text)


def watch(request: training_service_pb2.WatchTrainingRunRequest) -> tuple[RunName, int]:
    """Read a WatchTrainingRun request: the run and the last cursor seen."""
    violations = Violations()
    name = RunName.check(request.name, "name", violations)
    if request.after_cursor < 0:
        violations.add("after_cursor", "must not be negative")
    violations.raise_if_any()
    assert name is not None
    return name, request.after_cursor


def run_to_proto(run: TrainingRun, queue: QueueStatus | None = None) -> training_run_pb2.TrainingRun:
    """A run as clients see it, and why it waits."""
    return training_run_pb2.TrainingRun(
        name=str(run.name),
        spec=spec_to_proto(run.spec),
        state=training_run_pb2.TrainingRun.State.Value(f"STATE_{run.state.value}"),
        error=status_to_proto(run.error),
        progress=progress_to_proto(run.progress) if run.progress else None,
        metrics=[_metric(one) for one in run.metrics],
        model_version=run.model_version,
        stop_reason=run.stop_reason,
        labels=dict(run.labels),
        create_time=timestamp(run.create_time),
        start_time=timestamp(run.start_time),
        end_time=timestamp(run.end_time),
        update_time=timestamp(run.update_time),
        etag=f'"{run.revision}"',
        queue=_queue(queue) if queue else None,
        checkpoint=_checkpoint(run.checkpoint) if run.checkpoint else None,
        files=[
            training_run_pb2.RunFile(
                name=str(RunFileName(run.name.project, run.name.run, one.filename)),
                size_bytes=one.size_bytes,
                media_type=one.media_type,
            )
            for one in run.files
        ],
        sweep=str(run.sweep) if run.sweep else "",
        restart_count=run.restarts,
    )


def _queue(queue: QueueStatus) -> training_run_pb2.QueueStatus:
    return training_run_pb2.QueueStatus(position=queue.position, reason=queue.reason.value, message=queue.message)


def _checkpoint(one: Checkpoint) -> training_run_pb2.Checkpoint:
    return training_run_pb2.Checkpoint(
        phase=one.phase, epoch=one.epoch, step=one.step, size_bytes=one.size_bytes, create_time=timestamp(one.time)
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
            result.progress.CopyFrom(progress_to_proto(progress))
        case EpochCompleted() as epoch:
            result.epoch_completed.CopyFrom(
                training_run_pb2.EpochCompleted(
                    progress=progress_to_proto(epoch.progress),
                    metrics=[_metric(one) for one in epoch.metrics],
                    learning_rate=epoch.learning_rate,
                )
            )
        case LogLine() as line:
            result.log_line.severity, result.log_line.message = line.severity, line.message
        case CheckpointSaved() as saved:
            checkpoint = Checkpoint(saved.phase, saved.epoch, saved.size_bytes, event.time, saved.step)
            result.checkpoint.CopyFrom(_checkpoint(checkpoint))
    return result


def progress_to_proto(progress: Progress) -> training_run_pb2.Progress:
    """Where a run, or another job, is."""
    return training_run_pb2.Progress(
        phase=progress.phase,
        epoch=progress.epoch,
        epoch_count=progress.epoch_count,
        images_done=progress.images_done,
        image_count=progress.image_count,
        images_per_second=progress.images_per_second,
        eta=None if progress.eta_s is None else duration(progress.eta_s),
        step=progress.step,
        step_count=progress.step_count,
        learning_rate=progress.learning_rate,
    )


def _metric(metric: Metric) -> metric_pb2.Metric:
    return metric_pb2.Metric(
        name=metric.name, value=metric.value, split=metric.split, class_name=getattr(metric, "class_name", "")
    )
