"""Training runs and their legal transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from enxerto.kernel.names import BaseModelName, ModelName, RunName, SnapshotName
from enxerto.training.domain.events import EventBody, Metric, Progress, StateChanged
from enxerto.training.domain.states import RunState
from enxerto.training.errors import RunFinishedError
from enxerto.vision.finetuning import FinetuneSpec

MAX_ATTEMPTS = 3
"""Jobs submitted for one run before its loss is final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to train, with every default filled in."""

    snapshot: SnapshotName
    base_model: BaseModelName
    model: ModelName
    """Model that the version is registered under."""
    finetune: FinetuneSpec
    num_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One training of one spec. A transition returns the changed run."""

    name: RunName
    uid: str
    """Never reused; names the run's job and objects."""
    spec: RunSpec
    create_time: datetime
    update_time: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    state: RunState = RunState.QUEUED
    error: bytes | None = None
    """A serialised google.rpc.Status, for FAILED."""
    progress: Progress | None = None
    metrics: tuple[Metric, ...] = ()
    model_version: str = ""
    stop_reason: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    attempt: int = 0
    """Jobs that were (about to be) submitted."""
    submitted: bool = False
    """Whether the cluster has accepted the job of this attempt."""
    log_seq: int = 0
    """Entries of this attempt's log that are already events."""
    revision: int = 1

    @property
    def job_id(self) -> str:
        """Submission id of the current attempt: one id can be submitted once."""
        return f"{self.uid}-{self.attempt}"

    def state_event(self) -> EventBody:
        """The event that tells watchers of the current state."""
        return StateChanged(self.state, self.error, self.model_version)

    def attempt_next(self, *, now: datetime) -> "TrainingRun":
        """Begin another job; it is written down before the cluster hears of it."""
        self._require("be submitted", RunState.QUEUED, RunState.RUNNING)
        return replace(self, attempt=self.attempt + 1, submitted=False, log_seq=0, update_time=now)

    def accepted(self, *, now: datetime) -> "TrainingRun":
        """The cluster has the job."""
        return replace(self, submitted=True, update_time=now)

    def start(self, *, now: datetime) -> "TrainingRun":
        """The workers began."""
        self._require("start", RunState.QUEUED)
        return replace(self, state=RunState.RUNNING, start_time=now, update_time=now)

    def advance(self, progress: Progress | None, *, log_seq: int, now: datetime) -> "TrainingRun":
        """The job's log was read up to `log_seq`."""
        return replace(self, progress=progress, log_seq=log_seq, update_time=now)

    def trained(self, metrics: tuple[Metric, ...], stop_reason: str, *, now: datetime) -> "TrainingRun":
        """Training ended well; the version is to be registered."""
        self._require("be registered", RunState.QUEUED, RunState.RUNNING)
        return replace(self, state=RunState.REGISTERING, metrics=metrics, stop_reason=stop_reason, update_time=now)

    def succeed(self, model_version: str, *, now: datetime) -> "TrainingRun":
        """The version is registered and READY."""
        self._require("succeed", RunState.REGISTERING)
        return replace(self, state=RunState.SUCCEEDED, model_version=model_version, end_time=now, update_time=now)

    def fail(self, error: bytes, *, now: datetime, model_version: str = "") -> "TrainingRun":
        """The run failed for good; `model_version` names a quarantined one."""
        if self.state.final:
            raise RunFinishedError(self.name, self.state, "fail")
        return replace(
            self, state=RunState.FAILED, error=error, model_version=model_version, end_time=now, update_time=now
        )

    def cancel(self, *, now: datetime) -> "TrainingRun":
        """Someone asks the run to stop: at once when the cluster has never heard of it.

        Raises:
            RunFinishedError: the run has succeeded or failed.
        """
        if self.state in (RunState.CANCELLING, RunState.CANCELLED):
            return self
        if self.state.final:
            raise RunFinishedError(self.name, self.state, "be cancelled")
        cancelling = replace(self, state=RunState.CANCELLING, update_time=now)
        return cancelling.cancelled(now=now) if self.attempt == 0 else cancelling

    def cancelled(self, *, now: datetime) -> "TrainingRun":
        """The workers are gone."""
        self._require("become CANCELLED", RunState.CANCELLING)
        return replace(self, state=RunState.CANCELLED, end_time=now, update_time=now)

    def _require(self, action: str, *states: RunState) -> None:
        if self.state not in states:
            raise RunFinishedError(self.name, self.state, action)
