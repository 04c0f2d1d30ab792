"""From the contracts' messages to the values that callers read."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from enxerto.client import _results as results
from enxerto.client._errors import from_status
from enxerto.inference.v1 import deployment_pb2, vision_pb2, vision_service_pb2
from enxerto.registry.v1 import model_pb2, model_version_pb2
from enxerto.training.v1 import base_model_pb2, dataset_pb2, training_run_pb2
from enxerto.type.v1 import metric_pb2

E = TypeVar("E", bound=StrEnum)

_SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "backbone_learning_rate_ratio",
    "weight_decay",
    "warmup_fraction",
    "unfreeze_stages",
    "early_stopping_patience",
)


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC)


def _failure(message: Any) -> results.Failure | None:
    if not message.HasField("error"):
        return None
    status: status_pb2.Status = message.error
    error = from_status(status)
    violations = tuple(f"{item.field}: {item.description}" for item in error.violations)
    return results.Failure(error.code, error.reason, error.message, violations)


def _enum_name(enum: Any, value: int) -> str:
    """The enum's name without its prefix; UNSPECIFIED for a value that is newer than this client."""
    known: dict[str, int] = dict(enum.items())
    names = {number: name for name, number in known.items()}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return names.get(value, names[0]).removeprefix(prefix)


def _state(kind: type[E], enum: Any, value: int) -> E:
    name = _enum_name(enum, value)
    return kind(name) if name in kind.__members__ else kind("UNSPECIFIED")


def _metrics(messages: Iterable[metric_pb2.Metric]) -> tuple[results.Metric, ...]:
    return tuple(results.Metric(metric.name, metric.value, metric.split) for metric in messages)


def dataset(message: dataset_pb2.Dataset) -> results.Dataset:
    """Convert a dataset."""
    return results.Dataset(message.name, message.display_name, message.latest_snapshot, _time(message, "create_time"))


def snapshot(message: dataset_pb2.Snapshot) -> results.Snapshot:
    """Convert a snapshot."""
    return results.Snapshot(
        name=message.name,
        state=_state(results.SnapshotState, dataset_pb2.Snapshot.State, message.state),
        digest=message.digest,
        class_names=tuple(message.class_names),
        split_counts=dict(message.split_counts),
        size_bytes=message.size_bytes,
        findings=tuple(
            results.Finding(
                _enum_name(dataset_pb2.Finding.Severity, finding.severity), finding.path, finding.code, finding.message
            )
            for finding in message.findings
        ),
        finding_count=message.finding_count,
        error=_failure(message),
        create_time=_time(message, "create_time"),
    )


def base_model(message: base_model_pb2.BaseModel) -> results.BaseModel:
    """Convert a base model."""
    return results.BaseModel(
        name=message.name,
        display_name=message.display_name,
        library=message.library,
        licence=message.licence,
        parameter_count=message.parameter_count,
        feature_dim=message.feature_dim,
        stages=tuple(message.stages),
        offline=message.offline,
    )


def progress(message: training_run_pb2.Progress) -> results.Progress:
    """Convert a run's progress."""
    return results.Progress(
        phase=message.phase,
        epoch=message.epoch,
        epoch_count=message.epoch_count,
        images_done=message.images_done,
        image_count=message.image_count,
        images_per_second=message.images_per_second,
        eta_s=message.eta.ToNanoseconds() / 1e9 if message.HasField("eta") else None,
    )


def run(message: training_run_pb2.TrainingRun) -> results.Run:
    """Convert a training run."""
    spec: Any = message.spec
    settings: dict[str, Any] = {name: getattr(spec, name) for name in _SETTINGS if spec.HasField(name)}
    settings["optimizer"] = _enum_name(training_run_pb2.Optimizer, spec.optimizer)
    settings |= {"augment": spec.augment, "seed": spec.seed, "num_workers": spec.num_workers}
    return results.Run(
        name=message.name,
        state=_state(results.RunState, training_run_pb2.TrainingRun.State, message.state),
        snapshot=spec.snapshot,
        base_model=spec.base_model,
        weights=_enum_name(training_run_pb2.Weights, spec.weights),
        strategy=_enum_name(training_run_pb2.Strategy, spec.strategy),
        model=spec.model,
        settings=settings,
        progress=progress(message.progress) if message.HasField("progress") else None,
        metrics=_metrics(message.metrics),
        model_version=message.model_version,
        stop_reason=message.stop_reason,
        error=_failure(message),
        create_time=_time(message, "create_time"),
        start_time=_time(message, "start_time"),
        end_time=_time(message, "end_time"),
    )


def event(message: training_run_pb2.TrainingEvent) -> results.Event:
    """Convert one event of a run."""
    cursor, time = message.cursor, _time(message, "event_time")
    match message.WhichOneof("event"):
        case "state_changed":
            changed = message.state_changed
            return results.Event(
                cursor,
                time,
                "state",
                state=_state(results.RunState, training_run_pb2.TrainingRun.State, changed.state),
                model_version=changed.model_version,
                error=_failure(changed),
            )
        case "progress":
            return results.Event(cursor, time, "progress", progress=progress(message.progress))
        case "epoch_completed":
            epoch = message.epoch_completed
            return results.Event(
                cursor,
                time,
                "epoch",
                progress=progress(epoch.progress),
                metrics=_metrics(epoch.metrics),
                learning_rate=epoch.learning_rate,
            )
        case _:
            line = message.log_line
            return results.Event(cursor, time, "log", severity=line.severity, message=line.message)


def model(message: model_pb2.Model) -> results.Model:
    """Convert a model."""
    return results.Model(
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        aliases=dict(message.aliases),
        latest_version=message.latest_version,
        create_time=_time(message, "create_time"),
        update_time=_time(message, "update_time"),
        etag=message.etag,
    )


def version(message: model_version_pb2.ModelVersion) -> results.Version:
    """Convert a version."""
    parity, lineage = message.parity, message.lineage
    return results.Version(
        name=message.name,
        state=_state(results.VersionState, model_version_pb2.ModelVersion.State, message.state),
        class_names=tuple(message.label_map.names),
        metrics=_metrics(message.metrics),
        parity=results.Parity(
            parity.max_abs_difference, parity.agreement, parity.sample_count, tuple(parity.batch_sizes)
        )
        if message.HasField("parity")
        else None,
        lineage=results.Lineage(
            snapshot=lineage.snapshot,
            snapshot_digest=lineage.snapshot_digest,
            base_model=lineage.base_model,
            weights_digest=lineage.weights_digest,
            weights_source=lineage.weights_source,
            licence=lineage.licence,
            training_run=lineage.training_run,
        ),
        artifacts=tuple(
            results.Artifact(
                filename=artifact.filename,
                role=_enum_name(model_version_pb2.Artifact.Role, artifact.role),
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
                media_type=artifact.media_type,
            )
            for artifact in message.artifacts
        ),
        create_time=_time(message, "create_time"),
    )


def deployment(message: deployment_pb2.Deployment) -> results.Deployment:
    """Convert a deployment."""
    return results.Deployment(
        name=message.name,
        model_version=message.model_version,
        replicas=message.replicas,
        state=_state(results.DeploymentState, deployment_pb2.Deployment.State, message.state),
        serving_version=message.serving_version,
        target_version=message.target_version,
        error=_failure(message),
        create_time=_time(message, "create_time"),
        update_time=_time(message, "update_time"),
    )


def predictions(message: vision_service_pb2.ClassifyResponse) -> list[results.Prediction]:
    """Convert the answers to one request, in the order of its images."""
    spent = message.timings
    timings = results.Timings(*(part.ToNanoseconds() / 1e9 for part in (spent.queue, spent.decode, spent.compute)))
    return [_prediction(result, message.model_version, timings) for result in message.results]


def _prediction(result: vision_pb2.Classification, version_name: str, timings: results.Timings) -> results.Prediction:
    categories = tuple(results.Category(item.label, item.index, item.probability) for item in result.categories)
    best = categories[0]
    return results.Prediction(best.label, best.probability, categories, version_name, timings)
