"""Runs, and what they would take."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from enxerto.client._results.shared import Failure, Metric, Task, metric_of


class RunState(StrEnum):
    """Where a training run is."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    REGISTERING = "REGISTERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A pretrained network that a run may start from."""

    name: str
    display_name: str
    task: Task
    library: str
    licence: str
    parameter_count: int
    feature_dim: int
    stages: tuple[str, ...]
    offline: bool
    """Whether its weights come with an installed package and need no network."""
    takes_encoder: bool
    """Whether its backbone is chosen with `encoder`."""
    required_extra: str
    """The extra that workers must have installed; empty when it needs none."""
    imported_weights: str
    """sha256 of weights that were imported by hand; empty when there are none."""
    image_size: tuple[int, int]
    """Height and width of its input by default."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    phase: str
    epoch: int
    epoch_count: int
    images_done: int
    image_count: int
    images_per_second: float
    eta_s: float | None
    """Seconds that the rest of the training should take; None when it is not known."""
    step: int = 0
    """Steps of the optimizer done in this epoch; 0 outside of training."""
    step_count: int = 0
    learning_rate: float = 0.0
    """Of the heads, in the last step; 0 outside of training."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Why a run waits."""

    position: int
    """From 1; 0 of a run that has left the queue and waits inside Ray."""
    reason: str
    """PROJECT_QUOTA, CLUSTER_FULL, EARLIER_RUNS or RETRY."""
    message: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run can go on from."""

    phase: str
    epoch: int
    """Epochs done in this phase."""
    size_bytes: int
    create_time: datetime | None
    step: int = 0
    """Steps done in the epoch after these; 0 between epochs."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run has left."""

    name: str
    """Full name."""
    size_bytes: int
    media_type: str

    @property
    def filename(self) -> str:
        """Last part of the name."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Run:
    """One training."""

    name: str
    state: RunState
    snapshot: str
    base_model: str
    weights: str
    strategy: str
    model: str
    settings: Mapping[str, Any]
    """The other settings in force, groups as mappings: `settings["loss"]["focal_gamma"]`."""
    progress: Progress | None
    metrics: tuple[Metric, ...]
    model_version: str
    """Registered version; empty until the run has SUCCEEDED."""
    stop_reason: str
    error: Failure | None
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None

    queue: QueueStatus | None = None
    """Why a QUEUED run waits."""
    checkpoint: Checkpoint | None = None
    """The last one; None before the first."""
    files: tuple[RunFile, ...] = ()
    """What the run has left besides its version's files."""
    sweep: str = ""
    """The sweep that it is a trial of."""
    restart_count: int = 0
    """Times that its job was lost and started again; workers that are replaced while the job lives are not counted."""
    encoder: str = ""

    def metric(self, name: str, split: str | None = None) -> float | None:
        """A metric's value; the first one of that name when no split is given, None when it was not measured."""
        return metric_of(self.metrics, name, split)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run."""

    cursor: int
    """Give it to `watch` to continue after this event."""
    time: datetime | None
    kind: str
    """`state`, `progress`, `epoch`, `checkpoint` or `log`."""
    state: RunState | None = None
    progress: Progress | None = None
    metrics: tuple[Metric, ...] = ()
    learning_rate: float | None = None
    severity: str = ""
    message: str = ""
    model_version: str = ""
    error: Failure | None = None
    checkpoint: Checkpoint | None = None

    def metric(self, name: str, split: str | None = None) -> float | None:
        """A metric's value at the end of the epoch, or None."""
        return metric_of(self.metrics, name, split)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take on this cluster, without waiting in the queue."""

    duration_s: float
    epoch_duration_s: float
    """Of the last phase."""
    images_per_second: float
    memory_bytes: int
    """Largest of a worker."""
    gpu_memory_bytes: int
    measured_steps: int
    device: str


@dataclass(frozen=True, slots=True)
class BaseModelScore:
    """How well a base model's features tell the classes apart."""

    base_model: str
    probe_accuracy: float
    knn_accuracy: float
    time_per_image_s: float
    parameter_count: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Base models, best first."""

    scores: tuple[BaseModelScore, ...]
    skipped: Mapping[str, str]
    """Base models that could not be probed, and why."""
