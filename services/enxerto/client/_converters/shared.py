"""What the messages of several resources have in common."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from enxerto.client import _results as results
from enxerto.client._errors import from_status
from enxerto.training.v1 import training_run_pb2
from enxerto.type.v1 import metric_pb2, task_pb2

E = TypeVar("E", bound=StrEnum)


def time(message: Message, field: str) -> datetime | None:
    """A moment, or None when the field is not set."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC)


def failure(message: Any) -> results.Failure | None:
    """Why a resource failed, if it did."""
    if not message.HasField("error"):
        return None
    status: status_pb2.Status = message.error
    error = from_status(status)
    violations = tuple(f"{item.field}: {item.description}" for item in error.violations)
    return results.Failure(error.code, error.reason, error.message, violations)


def enum_name(enum: Any, value: int) -> str:
    """The enum's name without its prefix; UNSPECIFIED for a value that is newer than this client."""
    known: dict[str, int] = dict(enum.items())
    names = {number: name for name, number in known.items()}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return names.get(value, names[0]).removeprefix(prefix)


def state(kind: type[E], enum: Any, value: int) -> E:
    """A state; UNSPECIFIED for one that is newer than this client."""
    name = enum_name(enum, value)
    return kind(name) if name in kind.__members__ else kind("UNSPECIFIED")


def metrics(messages: Iterable[metric_pb2.Metric]) -> tuple[results.Metric, ...]:
    """Measurements."""
    return tuple(results.Metric(metric.name, metric.value, metric.split, metric.class_name) for metric in messages)


def task(value: int) -> results.Task:
    """A task; UNSPECIFIED for one that is newer than this client."""
    return state(results.Task, task_pb2.Task, value)


def seconds(message: Duration) -> float:
    """A duration in seconds."""
    return message.ToNanoseconds() / 1e9


def progress(message: training_run_pb2.Progress) -> results.Progress:
    """How far workers are; a validation counts images only."""
    return results.Progress(
        phase=message.phase,
        epoch=message.epoch,
        epoch_count=message.epoch_count,
        images_done=message.images_done,
        image_count=message.image_count,
        images_per_second=message.images_per_second,
        eta_s=seconds(message.eta) if message.HasField("eta") else None,
        step=message.step,
        step_count=message.step_count,
        learning_rate=message.learning_rate,
    )
