"""The loop that drives every sweep that is not final. It may be killed at any point and goes on from what is stored.

A trial is written down, with its parameters and the name that its run will have, before the run is created; creating it
again gives the same run. Scores are read from the runs' own events, so that the search is built again after a restart
from the trials and their events alone.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, NotFoundError, UnavailableError
from enxerto.training.domain import (
    PRUNED,
    EpochCompleted,
    RunEvent,
    RunState,
    Sweep,
    SweepState,
    TrainingRun,
    Trial,
)
from enxerto.training.errors import RunFinishedError, StaleRevisionError, SweepFailedError
from enxerto.training.ports import Idempotency, RunStore, Search, Searches, StatusEncoder, SweepStore, TrialSpecs
from enxerto.training.service.runs import Runs
from enxerto.training.service.signals import Signals, wait
from enxerto.training.service.sweeps import SWEEPS

logger = logging.getLogger(__name__)

_IDLE_S = 5.0
_EVENTS_AT_ONCE = 500
_TRIAL_LABEL = "sweep"


@dataclass(slots=True)
class _Reading:
    """How far a trial's events have been read."""

    cursor: int = 0
    epochs: set[tuple[str, int]] = field(default_factory=set)
    """Epochs with a score; those that are trained again after a loss count once."""
    best: float | None = None
    told: bool = False


class SweepDriver:
    """Moves sweeps towards a final state.

    Args:
        sweeps: what is being driven.
        store: the trials' runs and their events.
        runs: creates and cancels trials.
        searches: chooses parameters.
        trial_specs: puts them into the spec.
        encode: turns an error into what a failed sweep keeps.
        signals: wakes the loop.
        clock: the time.
        interval_s: how often trials are looked at while sweeps are active.
    """

    def __init__(
        self,
        *,
        sweeps: SweepStore,
        store: RunStore,
        runs: Runs,
        searches: Searches,
        trial_specs: TrialSpecs,
        encode: StatusEncoder,
        signals: Signals,
        clock: Clock,
        interval_s: float = 1.0,
    ) -> None:
        self._sweeps = sweeps
        self._store = store
        self._runs = runs
        self._searches = searches
        self._trial_specs = trial_specs
        self._encode = encode
        self._signals = signals
        self._clock = clock
        self._interval_s = interval_s
        self._open: dict[str, tuple[Search, dict[int, _Reading]]] = {}

    async def run(self) -> None:
        """Drive for as long as the process lives."""
        with self._signals.listen(SWEEPS) as woken:
            while True:
                active = await self.step()
                await wait(woken, self._interval_s if active else _IDLE_S)

    async def step(self) -> int:
        """Drive every sweep one step; returns how many are active."""
        try:
            active = await self._sweeps.list_active()
        except UnavailableError as error:
            logger.warning("sweeps cannot be listed", extra={"error": str(error)})
            return 1
        await asyncio.gather(*(self._guarded(sweep) for sweep in active))
        return len(active)

    async def _guarded(self, sweep: Sweep) -> None:
        try:
            await self._drive(sweep)
        except StaleRevisionError:
            # Someone cancelled it, or another process drives it: what this one believes of its trials may be old.
            self._open.pop(sweep.uid, None)
        except UnavailableError as error:
            logger.warning("sweep waits", extra={"sweep": str(sweep.name), "error": str(error)})
        except Exception:
            # One broken sweep must not stop the others.
            self._open.pop(sweep.uid, None)
            logger.exception("sweep cannot be driven", extra={"sweep": str(sweep.name)})

    async def _drive(self, sweep: Sweep) -> None:
        search, readings = self._search(sweep)
        for trial in sweep.trials:
            if not trial.over or not readings[trial.number].told:
                sweep = await self._follow(sweep, trial, search, readings[trial.number])
        if sweep.state is SweepState.CANCELLING and not sweep.open_trials:
            await self._end(sweep.cancelled(now=self._clock.now()))
        elif sweep.exhausted:
            await self._finish(sweep)
        else:
            while sweep.wants_trial:
                sweep = await self._begin(sweep, search, readings)

    def _search(self, sweep: Sweep) -> tuple[Search, dict[int, _Reading]]:
        if sweep.uid not in self._open:
            search = self._searches(sweep.plan)
            for trial in sweep.trials:
                search.restore(trial.number, trial.parameters)
            self._open[sweep.uid] = search, {trial.number: _Reading() for trial in sweep.trials}
        return self._open[sweep.uid]

    async def _begin(self, sweep: Sweep, search: Search, readings: dict[int, _Reading]) -> Sweep:
        number = len(sweep.trials) + 1
        # The search remembers whom it has asked for; after a failed save it is built again.
        parameters = await asyncio.to_thread(search.ask, number)
        sweep = await self._sweeps.save(sweep.begin_trial(parameters, now=self._clock.now()))
        reading = readings[number] = _Reading()
        return await self._follow(sweep, sweep.trials[-1], search, reading)

    async def _follow(self, sweep: Sweep, trial: Trial, search: Search, reading: _Reading) -> Sweep:
        """Bring a trial's run into being, read its scores, and stop it when it is not wanted any more."""
        try:
            run = await self._run(sweep, trial)
        except UnavailableError:
            raise
        except EnxertoError as error:
            # Values that do not go together, or a name that is taken: this trial has failed, others may do better.
            logger.warning("trial refused", extra={"run": str(trial.run), "error": str(error)})
            search.tell(trial.number, None)
            reading.told = True
            return await self._save(sweep, replace(trial, state=RunState.FAILED))
        if run is None:
            search.tell(trial.number, None)
            reading.told = True
            return await self._save(sweep, replace(trial, state=RunState.CANCELLED))
        stop = await self._read(sweep, trial, run, search, reading)
        if sweep.state is SweepState.CANCELLING:
            run = await self._stop(run, "")
        elif stop:
            run = await self._prune(run)
        if run.state.final and not reading.told:
            good = run.state is RunState.SUCCEEDED or run.stop_reason == PRUNED
            search.tell(trial.number, reading.best if good else None)
            reading.told = True
        pruned = run.stop_reason == PRUNED
        return await self._save(sweep, replace(trial, state=run.state, score=reading.best, pruned=pruned))

    async def _run(self, sweep: Sweep, trial: Trial) -> TrainingRun | None:
        """The trial's run, created when it is not there yet; None when there is none and none is wanted."""
        try:
            run = await self._store.get(trial.run)
        except NotFoundError:
            if sweep.state is not SweepState.RUNNING:
                return None
            spec = self._trial_specs(sweep.plan, trial.parameters)
            request = Idempotency(f"{sweep.uid}-{trial.number}", sweep.uid)
            labels: Mapping[str, str] = {**sweep.labels, _TRIAL_LABEL: sweep.name.sweep}
            parent = sweep.name.parent
            return await self._runs.create(parent, trial.run.run, spec, labels, request=request, sweep=sweep.name)
        return run

    async def _read(self, sweep: Sweep, trial: Trial, run: TrainingRun, search: Search, reading: _Reading) -> bool:
        """Read the scores that are new; returns whether the trial should stop for doing worse than the others."""
        stop = False
        while events := await self._store.list_events(run.uid, reading.cursor, _EVENTS_AT_ONCE):
            for event in events:
                reading.cursor = event.cursor
                score = _score(event, sweep.plan.objective)
                if score is None:
                    continue
                assert isinstance(event.body, EpochCompleted)
                phase, epoch = event.body.progress.phase, event.body.progress.epoch
                if (phase, epoch) in reading.epochs:
                    continue
                reading.epochs.add((phase, epoch))
                if reading.best is None or sweep.plan.better(score, reading.best):
                    reading.best = score
                step = sweep.plan.comparable_epoch(run.spec, phase, epoch)
                if step is not None:
                    stop = search.report(trial.number, step, score) or stop
            if len(events) < _EVENTS_AT_ONCE:
                break
        return stop

    async def _prune(self, run: TrainingRun) -> TrainingRun:
        """Stop a trial that does worse; one that has no epoch left has cost its time and keeps its result."""
        # The scores may be newer than the run that was read before them.
        run = await self._store.get(run.name)
        return await self._stop(run, PRUNED) if run.has_epochs_left else run

    async def _stop(self, run: TrainingRun, reason: str) -> TrainingRun:
        try:
            return await self._runs.cancel(run.name, reason)
        except RunFinishedError:
            # Its training has ended by itself meanwhile.
            return await self._store.get(run.name)

    async def _finish(self, sweep: Sweep) -> None:
        best, now = sweep.best, self._clock.now()
        if best is not None:
            await self._end(sweep.succeed(now=now))
            return
        last = sweep.trials[-1]
        error = SweepFailedError(sweep.name, len(sweep.trials), f"{last.run} is {last.state}")
        await self._end(sweep.fail(self._encode(error), now=now))

    async def _end(self, sweep: Sweep) -> None:
        await self._sweeps.save(sweep)
        self._open.pop(sweep.uid, None)
        logger.info("sweep ended", extra={"sweep": str(sweep.name), "state": sweep.state.value})

    async def _save(self, sweep: Sweep, trial: Trial) -> Sweep:
        changed = sweep.follow(trial, now=self._clock.now())
        return sweep if changed is sweep else await self._sweeps.save(changed)


def _score(event: RunEvent, objective: str) -> float | None:
    """The result on the validation split, when the event has one."""
    if not isinstance(event.body, EpochCompleted):
        return None
    values = (one.value for one in event.body.metrics if (one.name, one.split) == (objective, "val"))
    return next(values, None)
