"""Training runs and their legal transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from enxerto.kernel.names import BaseModelName, ModelName, RunName, SnapshotName, SweepName
from enxerto.training.domain.events import EventBody, Metric, Progress, StateChanged
from enxerto.training.domain.results import ResultArtifact
from enxerto.training.domain.states import RunState
from enxerto.training.errors import RunFinishedError
from enxerto.vision.finetuning import FinetuneSpec

MAX_LOSSES = 3
"""Jobs that may be lost before the run fails. Attempts after a pause do not count, and nothing sets the count back:
a run that loses its job for the third time has failed, however far it came in between."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run can go on from."""

    phase: str
    epoch: int
    """Epochs done in this phase."""
    size_bytes: int
    time: datetime
    step: int = 0
    """Steps done in the epoch after these; 0 between epochs."""


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
    announced: bool = False
    """Whether a job of this attempt may be there: written down before the cluster hears of it."""
    submitted: bool = False
    """Whether the cluster has accepted the job of this attempt."""
    use_gpu: bool | None = None
    """Whether this attempt's workers have a GPU each; None leaves it to the job, which sees what the cluster has."""
    log_seq: int = 0
    """Entries of this attempt's log that are already events."""
    losses: int = 0
    """Jobs that ended without a word."""
    checkpoint: Checkpoint | None = None
    files: tuple[ResultArtifact, ...] = ()
    """What the run has left besides its version."""
    sweep: SweepName | None = None
    """The sweep that it is a trial of."""
    waits_for: str = ""
    """Why its workers had not started when it was last looked at; watchers hear of every change."""
    revision: int = 1

    @property
    def job_id(self) -> str:
        """Submission id of the current attempt: one id can be submitted once."""
        return f"{self.uid}-{self.attempt}"

    @property
    def restarts(self) -> int:
        """Times that another job took the place of one that was lost; after the last loss there is none."""
        return min(self.losses, MAX_LOSSES - 1)

    @property
    def has_epochs_left(self) -> bool:
        """Whether more of the phase that the run is in, as last told, is to come; evaluation and export have none."""
        return self.progress is not None and self.progress.epoch < self.progress.epoch_count

    def state_event(self) -> EventBody:
        """The event that tells watchers of the current state."""
        return StateChanged(self.state, self.error, self.model_version)

    def attempt_next(self, *, now: datetime, use_gpu: bool | None = None) -> "TrainingRun":
        """Begin another job; it is written down before the cluster hears of it, and so is what it computes on."""
        self._require("be submitted", RunState.QUEUED, RunState.RUNNING)
        return replace(
            self,
            attempt=self.attempt + 1,
            announced=True,
            submitted=False,
            use_gpu=use_gpu,
            log_seq=0,
            waits_for="",
            update_time=now,
        )

    def accepted(self, *, now: datetime) -> "TrainingRun":
        """The cluster has the job."""
        return replace(self, submitted=True, update_time=now)

    def wait(self, reason: str, *, now: datetime) -> "TrainingRun":
        """The run is not submitted yet, or Ray has not started its workers."""
        self._require("wait", RunState.QUEUED, RunState.RUNNING)
        return replace(self, waits_for=reason, update_time=now)

    def lose(self, *, now: datetime) -> "TrainingRun":
        """The job ended without a word; the caller decides whether there is another."""
        self._require("lose its job", RunState.QUEUED, RunState.RUNNING)
        return replace(self, announced=False, submitted=False, losses=self.losses + 1, update_time=now)

    def start(self, *, now: datetime) -> "TrainingRun":
        """The workers began; `start_time` stays that of the first time."""
        self._require("start", RunState.QUEUED)
        started = self.start_time or now
        return replace(self, state=RunState.RUNNING, start_time=started, waits_for="", update_time=now)

    def advance(self, progress: Progress | None, *, log_seq: int, now: datetime) -> "TrainingRun":
        """The job's log was read up to `log_seq`."""
        return replace(self, progress=progress, log_seq=log_seq, update_time=now)

    def saved(self, checkpoint: Checkpoint, *, now: datetime) -> "TrainingRun":
        """The run can go on from here."""
        return replace(self, checkpoint=checkpoint, update_time=now)

    def trained(self, metrics: tuple[Metric, ...], stop_reason: str, *, now: datetime) -> "TrainingRun":
        """Training ended well, perhaps just before a pause reached it; the version is to be registered."""
        self._require("be registered", RunState.QUEUED, RunState.RUNNING, RunState.PAUSING)
        return replace(self, state=RunState.REGISTERING, metrics=metrics, stop_reason=stop_reason, update_time=now)

    def succeed(self, model_version: str, files: tuple[ResultArtifact, ...] = (), *, now: datetime) -> "TrainingRun":
        """The version is registered and READY; a run that makes no version leaves files only."""
        self._require("succeed", RunState.REGISTERING)
        return replace(
            self, state=RunState.SUCCEEDED, model_version=model_version, files=files, end_time=now, update_time=now
        )

    def fail(self, error: bytes, *, now: datetime, model_version: str = "") -> "TrainingRun":
        """The run failed for good; `model_version` names a quarantined one."""
        if self.state.final:
            raise RunFinishedError(self.name, self.state, "fail")
        return replace(
            self, state=RunState.FAILED, error=error, model_version=model_version, end_time=now, update_time=now
        )

    def pause(self, *, now: datetime) -> "TrainingRun":
        """Someone asks the run to stop for now: at once when no job of it can be there.

        Raises:
            RunFinishedError: nothing is left to pause.
        """
        if self.state in (RunState.PAUSING, RunState.PAUSED):
            return self
        self._require("be paused", RunState.QUEUED, RunState.RUNNING)
        pausing = replace(self, state=RunState.PAUSING, update_time=now)
        return pausing if self.announced else pausing.paused(now=now)

    def paused(self, *, now: datetime) -> "TrainingRun":
        """No worker is left; the last checkpoint is."""
        self._require("become PAUSED", RunState.PAUSING)
        return replace(self, state=RunState.PAUSED, announced=False, submitted=False, waits_for="", update_time=now)

    def resume(self, *, now: datetime) -> "TrainingRun":
        """A paused run waits for the cluster again.

        Raises:
            RunFinishedError: the pause has not ended yet, or the run has.
        """
        if self.state.trains:
            return self
        self._require("be resumed", RunState.PAUSED)
        return replace(self, state=RunState.QUEUED, update_time=now)

    def cancel(self, *, now: datetime, stop_reason: str = "") -> "TrainingRun":
        """Someone asks the run to stop: at once when no job of it can be there.

        Raises:
            RunFinishedError: training is over: the run has succeeded or failed, or its version is being registered.
        """
        if self.state in (RunState.CANCELLING, RunState.CANCELLED):
            return self
        if self.state is RunState.REGISTERING:
            # The registry may have the version already, and versions never go.
            action = "be cancelled: its training is over and its version is being registered"
            raise RunFinishedError(self.name, self.state, action)
        if self.state.final:
            raise RunFinishedError(self.name, self.state, "be cancelled")
        cancelling = replace(self, state=RunState.CANCELLING, stop_reason=stop_reason, update_time=now)
        return cancelling if self.announced else cancelling.cancelled(now=now)

    def cancelled(self, *, now: datetime) -> "TrainingRun":
        """The workers are gone."""
        self._require("become CANCELLED", RunState.CANCELLING)
        return replace(self, state=RunState.CANCELLED, end_time=now, update_time=now)

    def _require(self, action: str, *states: RunState) -> None:
        if self.state not in states:
            raise RunFinishedError(self.name, self.state, action)
