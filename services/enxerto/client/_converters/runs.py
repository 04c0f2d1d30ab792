"""Base models, runs and sweeps."""

from enxerto.client import _results as results
from enxerto.client._converters.shared import enum_name, failure, metrics, progress, seconds, state, task, time
from enxerto.client._settings import settings_of
from enxerto.training.v1 import base_model_pb2, sweep_pb2, training_run_pb2, training_service_pb2


def base_model(message: base_model_pb2.BaseModel) -> results.BaseModel:
    """Convert a base model."""
    return results.BaseModel(
        name=message.name,
        display_name=message.display_name,
        task=task(message.task),
        library=message.library,
        licence=message.licence,
        parameter_count=message.parameter_count,
        feature_dim=message.feature_dim,
        stages=tuple(message.stages),
        offline=message.offline,
        takes_encoder=message.takes_encoder,
        required_extra=message.required_extra,
        imported_weights=message.imported_weights,
        image_size=(message.preprocess.height, message.preprocess.width),
    )


def run(message: training_run_pb2.TrainingRun) -> results.Run:
    """Convert a training run."""
    spec = message.spec
    settings = settings_of(spec)
    for named in ("weights", "strategy", "encoder"):
        settings.pop(named, None)
    return results.Run(
        name=message.name,
        state=state(results.RunState, training_run_pb2.TrainingRun.State, message.state),
        snapshot=spec.snapshot,
        base_model=spec.base_model,
        weights=enum_name(training_run_pb2.Weights, spec.weights),
        strategy=enum_name(training_run_pb2.Strategy, spec.strategy),
        model=spec.model,
        settings=settings,
        progress=progress(message.progress) if message.HasField("progress") else None,
        metrics=metrics(message.metrics),
        model_version=message.model_version,
        stop_reason=message.stop_reason,
        error=failure(message),
        create_time=time(message, "create_time"),
        start_time=time(message, "start_time"),
        end_time=time(message, "end_time"),
        queue=results.QueueStatus(message.queue.position, message.queue.reason, message.queue.message)
        if message.HasField("queue")
        else None,
        checkpoint=_checkpoint(message.checkpoint) if message.HasField("checkpoint") else None,
        files=tuple(results.RunFile(file.name, file.size_bytes, file.media_type) for file in message.files),
        sweep=message.sweep,
        restart_count=message.restart_count,
        encoder=spec.encoder,
    )


def event(message: training_run_pb2.TrainingEvent) -> results.Event:
    """Convert one event of a run."""
    cursor, moment = message.cursor, time(message, "event_time")
    match message.WhichOneof("event"):
        case "state_changed":
            changed = message.state_changed
            return results.Event(
                cursor,
                moment,
                "state",
                state=state(results.RunState, training_run_pb2.TrainingRun.State, changed.state),
                model_version=changed.model_version,
                error=failure(changed),
            )
        case "progress":
            return results.Event(cursor, moment, "progress", progress=progress(message.progress))
        case "epoch_completed":
            epoch = message.epoch_completed
            return results.Event(
                cursor,
                moment,
                "epoch",
                progress=progress(epoch.progress),
                metrics=metrics(epoch.metrics),
                learning_rate=epoch.learning_rate,
            )
        case "checkpoint":
            return results.Event(cursor, moment, "checkpoint", checkpoint=_checkpoint(message.checkpoint))
        case _:
            line = message.log_line
            return results.Event(cursor, moment, "log", severity=line.severity, message=line.message)


def _checkpoint(message: training_run_pb2.Checkpoint) -> results.Checkpoint:
    return results.Checkpoint(
        message.phase, message.epoch, message.size_bytes, time(message, "create_time"), message.step
    )


def estimate(message: training_service_pb2.TrainingEstimate) -> results.Estimate:
    """Convert what a run would take."""
    return results.Estimate(
        duration_s=seconds(message.duration),
        epoch_duration_s=seconds(message.epoch_duration),
        images_per_second=message.images_per_second,
        memory_bytes=message.memory_bytes,
        gpu_memory_bytes=message.gpu_memory_bytes,
        measured_steps=message.measured_steps,
        device=message.device,
    )


def ranking(message: training_service_pb2.BaseModelRanking) -> results.Ranking:
    """Convert base models, best first."""
    scores = tuple(
        results.BaseModelScore(
            base_model=one.base_model,
            probe_accuracy=one.probe_accuracy,
            knn_accuracy=one.knn_accuracy,
            time_per_image_s=seconds(one.time_per_image),
            parameter_count=one.parameter_count,
        )
        for one in message.scores
    )
    return results.Ranking(scores, dict(message.skipped))


def sweep(message: sweep_pb2.Sweep) -> results.Sweep:
    """Convert a sweep."""
    return results.Sweep(
        name=message.name,
        state=state(results.SweepState, sweep_pb2.Sweep.State, message.state),
        model=message.spec.model,
        parameters=tuple(one.field for one in message.parameters),
        max_trials=message.max_trials,
        trials=tuple(
            results.Trial(
                one.training_run,
                dict(one.parameters),
                state(results.RunState, training_run_pb2.TrainingRun.State, one.state),
                one.score if one.HasField("score") else None,
            )
            for one in message.trials
        ),
        best_run=message.best_run,
        best_score=message.best_score if message.best_run else None,
        error=failure(message),
        create_time=time(message, "create_time"),
        end_time=time(message, "end_time"),
    )
