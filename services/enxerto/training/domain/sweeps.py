"""Searches for hyperparameters and their legal transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from enxerto.kernel.names import RunName, SweepName
from enxerto.training.domain.events import TUNING
from enxerto.training.domain.runs import RunSpec
from enxerto.training.domain.states import RunState, SweepState
from enxerto.training.errors import SweepFinishedError
from enxerto.vision.specs import Task

PRUNED: Final = "PRUNED"
"""`stop_reason` of a trial that was stopped for doing worse than the others."""

OBJECTIVES: Final = {
    Task.CLASSIFICATION: "accuracy",
    Task.DETECTION: "map_50_95",
    Task.SEGMENTATION: "miou",
    Task.STYLE: "loss",
}
"""The metric on the validation split that decides; STYLE minimises it, the others maximise."""


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers between two bounds, both included."""

    low: float
    high: float
    log: bool
    """Whether each factor, rather than each difference, is as likely."""
    whole: bool
    """Whole numbers only."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A few values, as text."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepParameter:
    """One field of the spec and the values that it may take."""

    field: str
    """Path in the contract's TrainingSpec, such as `loss.label_smoothing`."""
    values: NumberRange | Choice


@dataclass(frozen=True, slots=True)
class Trial:
    """One try, written down before its run is created."""

    number: int
    """From 1."""
    run: RunName
    parameters: Mapping[str, str]
    """What the parameters are, as text, by field."""
    state: RunState = RunState.QUEUED
    """Of the run, when it was last looked at."""
    score: float | None = None
    """Best result so far."""
    pruned: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state.final


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What is searched, and how; it never changes."""

    template: bytes
    """The contract's TrainingSpec as it was given; a trial's defaults follow from its own values."""
    spec: RunSpec
    """The template with every default filled in."""
    parameters: tuple[SweepParameter, ...]
    max_trials: int
    max_parallel_trials: int = 1
    pruning_grace_epochs: int = 0
    """Epochs that every trial gets before it may be pruned, as `comparable_epoch` counts them; 0 prunes none."""
    seed: int = 0

    def comparable_epoch(self, trial: RunSpec, phase: str, epoch: int) -> int | None:
        """The epoch at which a trial's score is held against those of other trials; None for a score that is not.

        Of FINE_TUNE only epochs of tuning count: the heads before it stop at different epochs in different trials, so
        that the same count of all epochs would hold heads against tuned networks.

        Args:
            trial: what the trial's run does.
            phase: in which the score was measured, as progress names it.
            epoch: from 1, within the phase.
        """
        two_phases = trial.finetune.tunes and trial.finetune.task is not Task.STYLE
        return None if two_phases and phase != TUNING else epoch

    @property
    def objective(self) -> str:
        """The metric that decides."""
        return OBJECTIVES[self.spec.finetune.task]

    @property
    def maximises(self) -> bool:
        """Whether more of it is better."""
        return self.spec.finetune.task is not Task.STYLE

    def better(self, one: float, other: float) -> bool:
        """Whether one score beats another."""
        return one > other if self.maximises else one < other


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search for better hyperparameters; every trial is a training run. A transition returns the changed sweep."""

    name: SweepName
    uid: str
    plan: SweepPlan
    create_time: datetime
    update_time: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    state: SweepState = SweepState.RUNNING
    trials: tuple[Trial, ...] = ()
    error: bytes | None = None
    """A serialised google.rpc.Status, for FAILED."""
    end_time: datetime | None = None
    revision: int = 1

    @property
    def best(self) -> Trial | None:
        """The best trial so far: of those that succeeded once there are any, the earlier one of equals."""
        succeeded = [one for one in self.trials if one.score is not None and one.state is RunState.SUCCEEDED]
        running = [one for one in self.trials if one.score is not None and not one.state.final]
        best: Trial | None = None
        for one in succeeded or running:
            assert one.score is not None
            if best is None or best.score is None or self.plan.better(one.score, best.score):
                best = one
        return best

    @property
    def open_trials(self) -> tuple[Trial, ...]:
        """Those that are not over."""
        return tuple(one for one in self.trials if not one.over)

    @property
    def wants_trial(self) -> bool:
        """Whether another trial is to be begun now."""
        return (
            self.state is SweepState.RUNNING
            and len(self.trials) < self.plan.max_trials
            and len(self.open_trials) < self.plan.max_parallel_trials
        )

    @property
    def exhausted(self) -> bool:
        """Whether every trial has been made and is over."""
        return len(self.trials) >= self.plan.max_trials and not self.open_trials

    def begin_trial(self, parameters: Mapping[str, str], *, now: datetime) -> "Sweep":
        """Write a trial down; its run's name follows from the sweep and its number."""
        number = len(self.trials) + 1
        run = RunName(self.name.project, f"{self.name.sweep[:40].rstrip('-')}-{self.uid[:6]}-{number}")
        return replace(self, trials=(*self.trials, Trial(number, run, parameters)), update_time=now)

    def follow(self, trial: Trial, *, now: datetime) -> "Sweep":
        """Replace what is known of a trial."""
        trials = tuple(trial if one.number == trial.number else one for one in self.trials)
        return self if trials == self.trials else replace(self, trials=trials, update_time=now)

    def succeed(self, *, now: datetime) -> "Sweep":
        """Every trial is over and at least one has succeeded."""
        return self._end(SweepState.SUCCEEDED, now, SweepState.RUNNING)

    def fail(self, error: bytes, *, now: datetime) -> "Sweep":
        """No trial has succeeded, or the sweep cannot be driven on."""
        return replace(self._end(SweepState.FAILED, now, SweepState.RUNNING, SweepState.CANCELLING), error=error)

    def cancel(self, *, now: datetime) -> "Sweep":
        """Someone asks the sweep to stop.

        Raises:
            SweepFinishedError: it has succeeded or failed.
        """
        if self.state in (SweepState.CANCELLING, SweepState.CANCELLED):
            return self
        if self.state.final:
            raise SweepFinishedError(self.name, self.state, "be cancelled")
        return replace(self, state=SweepState.CANCELLING, update_time=now)

    def cancelled(self, *, now: datetime) -> "Sweep":
        """Every trial is over."""
        return self._end(SweepState.CANCELLED, now, SweepState.CANCELLING)

    def _end(self, state: SweepState, now: datetime, *before: SweepState) -> "Sweep":
        if self.state not in before:
            raise SweepFinishedError(self.name, self.state, f"become {state}")
        return replace(self, state=state, end_time=now, update_time=now)
