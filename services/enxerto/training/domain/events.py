"""What happens in a run: what the job reports, and what watchers see."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from enxerto.training.domain.states import RunState

TUNING: Final = "fine-tuning"
"""Phase of FINE_TUNE in which stages of the backbone learn; the heads have learned before."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number measured on one split."""

    name: str
    value: float
    split: str
    """`train`, `val` or `test`."""
    class_name: str = ""
    """The class; empty for all of them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    phase: str
    """`preparing`, `features`, `head`, `training`, `fine-tuning`, `evaluating`, `exporting`, and what lies between."""
    epoch: int = 0
    """Epochs done in this phase."""
    epoch_count: int = 0
    images_done: int = 0
    """In this epoch or pass, over all workers."""
    image_count: int = 0
    images_per_second: float = 0.0
    """Over all workers."""
    eta_s: float | None = None
    """Time that the rest of the training should take."""
    step: int = 0
    """Steps of the optimizer done in this epoch; 0 outside of training."""
    step_count: int = 0
    learning_rate: float = 0.0
    """Of the heads, in the last step; 0 outside of training."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The run entered a state."""

    state: RunState
    error: bytes | None = None
    """A serialised google.rpc.Status, for FAILED."""
    model_version: str = ""
    """Full name, for SUCCEEDED."""


@dataclass(frozen=True, slots=True)
class EpochCompleted:
    """An epoch ended."""

    progress: Progress
    metrics: tuple[Metric, ...]
    learning_rate: float
    """Of the head, at the end of the epoch."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something that a person should know."""

    severity: str
    """`INFO`, `WARNING` or `ERROR`."""
    message: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """The run can go on from here."""

    phase: str
    """The phase that it was written in."""
    epoch: int
    """Epochs done in this phase."""
    size_bytes: int
    step: int = 0
    """Steps done in the epoch after these; 0 between epochs."""


EventBody = StateChanged | Progress | EpochCompleted | LogLine | CheckpointSaved
"""What a watcher sees."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event at its place in the run."""

    cursor: int
    """From 1, without gaps."""
    time: datetime
    body: EventBody


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The train function runs."""


@dataclass(frozen=True, slots=True)
class JobTrained:
    """The result and all its artefacts are stored."""


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job gave up; submitting it again would not help."""

    error: bytes
    """A serialised google.rpc.Status."""


JobBody = JobStarted | Progress | EpochCompleted | LogLine | CheckpointSaved | JobTrained | JobFailed
"""What the job writes into its log."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One entry of one attempt's log."""

    seq: int
    """From 1, without gaps."""
    time: datetime
    body: JobBody
