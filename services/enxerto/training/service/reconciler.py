"""The loop that drives every run that is not final. It may be killed at any point and goes on from what is stored.

A run's attempt is written down before its job is submitted, and the job's id follows from it, so that a repeated
submission is rejected as a duplicate. Events move from the job's log into the store together with the position reached.
Registration repeats with the same request id.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import datetime

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, UnavailableError
from enxerto.training.domain import (
    EpochCompleted,
    EventBody,
    JobEvent,
    JobFailed,
    JobStarted,
    JobTrained,
    LogLine,
    Progress,
    RunState,
    TrainingRun,
)
from enxerto.training.domain.runs import MAX_ATTEMPTS
from enxerto.training.errors import JobLostError, ParityGateError, RunBrokenError, StaleRevisionError
from enxerto.training.ports import DatasetStore, JobOutput, JobRunner, Registry, RunStore, StatusEncoder, Telemetry
from enxerto.training.service.signals import Signals, wait

logger = logging.getLogger(__name__)

RUNS = "runs"
"""Signal: a run was created or cancelled."""
_IDLE_S = 5.0
_MAX_FAULTS = 20

Events = list[tuple[datetime, EventBody]]


class Reconciler:
    """Moves runs towards a final state.

    Args:
        runs: what is being driven.
        datasets: where the runs' snapshots are.
        jobs: the cluster.
        output: what jobs write.
        registry: where versions go.
        encode: turns an error into what a failed run keeps.
        telemetry: counts.
        signals: wakes watchers.
        clock: the time.
        interval_s: how often logs are read while runs are active.
        poll_s: how often the cluster is asked for a job's state.
    """

    def __init__(
        self,
        *,
        runs: RunStore,
        datasets: DatasetStore,
        jobs: JobRunner,
        output: JobOutput,
        registry: Registry,
        encode: StatusEncoder,
        telemetry: Telemetry,
        signals: Signals,
        clock: Clock,
        interval_s: float = 0.5,
        poll_s: float = 2.0,
    ) -> None:
        self._runs = runs
        self._datasets = datasets
        self._jobs = jobs
        self._output = output
        self._registry = registry
        self._encode = encode
        self._telemetry = telemetry
        self._signals = signals
        self._clock = clock
        self._interval_s = interval_s
        self._poll_s = poll_s
        self._next_poll: dict[str, float] = {}
        self._faults: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._stop_sent: set[str] = set()

    async def run(self) -> None:
        """Drive for as long as the process lives."""
        with self._signals.listen(RUNS) as woken:
            while True:
                active = await self.step()
                await wait(woken, self._interval_s if active else _IDLE_S)

    async def step(self) -> int:
        """Drive every run one step; returns how many are active."""
        try:
            active = await self._runs.list_active()
            self._telemetry.runs_by_state(await self._runs.count_by_state())
        except UnavailableError as error:
            logger.warning("runs cannot be listed", extra={"error": str(error)})
            return 1
        await asyncio.gather(*(self._guarded(run) for run in active))
        return len(active)

    async def _guarded(self, run: TrainingRun) -> None:
        try:
            if await self._drive(run):
                self._faults.pop(run.uid, None)
                self._waiting.discard(run.uid)
        except StaleRevisionError:
            logger.debug("run changed meanwhile", extra={"run": str(run.name)})
        except UnavailableError as error:
            self._next_poll[run.uid] = time.monotonic() + self._poll_s
            if run.uid not in self._waiting:
                self._waiting.add(run.uid)
                extra = {"run": str(run.name), "error": str(error), "cause": str(error.__cause__ or "")}
                logger.warning("run waits", extra=extra)
        except Exception:
            # One broken run must not stop the others.
            faults = self._faults[run.uid] = self._faults.get(run.uid, 0) + 1
            logger.exception("run cannot be driven", extra={"run": run.uid, "faults": faults})
            if faults >= _MAX_FAULTS:
                await self._fail(run, RunBrokenError(run.name, run.uid))

    async def _drive(self, run: TrainingRun) -> bool:
        """Move one run on; returns whether anything outside was asked."""
        if run.state is RunState.CANCELLING:
            await self._cancel(run)
        elif run.submitted and run.state is not RunState.REGISTERING:
            await self._follow(run)
        elif not self._due(run):
            return False
        elif run.state is RunState.REGISTERING:
            await self._register(run)
        else:
            await self._submit(run)
        return True

    async def _submit(self, run: TrainingRun) -> None:
        snapshot = await self._datasets.get_snapshot(run.spec.snapshot)
        assert snapshot.content is not None, "runs are accepted for READY snapshots only"
        if run.attempt == 0:
            run = await self._save(run.attempt_next(now=self._clock.now()))
        try:
            await self._jobs.submit(run, snapshot.content)
        except UnavailableError:
            raise
        except EnxertoError as error:
            await self._fail(run, error)
            return
        logger.info("job submitted", extra={"run": str(run.name), "job": run.job_id})
        now = self._clock.now()
        line = LogLine("INFO", f"attempt {run.attempt} was submitted to the cluster")
        await self._save(run.accepted(now=now), [(now, line)])

    async def _follow(self, run: TrainingRun) -> None:
        run = await self._tail(run)
        if run.state not in (RunState.QUEUED, RunState.RUNNING) or not self._due(run):
            return
        self._next_poll[run.uid] = time.monotonic() + self._poll_s
        state, message = await self._jobs.state(run.job_id)
        if not state.over:
            return
        # Its last words may have come after the first look.
        run = await self._tail(run)
        if run.state not in (RunState.QUEUED, RunState.RUNNING):
            return
        logger.warning("job lost", extra={"run": str(run.name), "job": run.job_id, "cluster_says": message})
        if run.attempt >= MAX_ATTEMPTS:
            await self._fail(run, JobLostError(run.name, run.attempt, message))
            return
        now = self._clock.now()
        line = LogLine("WARNING", f"attempt {run.attempt} ended without a result and is repeated: {message}")
        await self._save(run.attempt_next(now=now), [(now, line)])

    async def _tail(self, run: TrainingRun) -> TrainingRun:
        """Move what the job has written since into the store."""
        entries = await self._output.read_events(run.uid, run.attempt, run.log_seq)
        if not entries:
            return run
        events: Events = []
        changed = run
        for entry in entries:
            changed, body = await self._apply(changed, entry)
            if body is not None:
                events.append((entry.time, body))
            if changed.state not in (RunState.QUEUED, RunState.RUNNING):
                break
        saved = await self._save(changed, events)
        epochs = [body for _, body in events if isinstance(body, EpochCompleted)]
        self._telemetry.images_trained(sum(epoch.progress.image_count for epoch in epochs))
        self._telemetry.event_lag((self._clock.now() - entries[0].time).total_seconds())
        return saved

    async def _apply(self, run: TrainingRun, entry: JobEvent) -> tuple[TrainingRun, EventBody | None]:
        """What one entry of the log does to the run, and what watchers see of it."""
        now, body = self._clock.now(), entry.body
        progress = body.progress if isinstance(body, EpochCompleted) else body
        run = run.advance(progress if isinstance(progress, Progress) else run.progress, log_seq=entry.seq, now=now)
        match body:
            case JobStarted() if run.state is RunState.RUNNING:
                return run, LogLine("WARNING", "the workers were started again")
            case JobStarted():
                run = run.start(now=entry.time)
            case JobTrained():
                run = await self._trained(run, now)
            case JobFailed():
                run = run.fail(body.error, now=now)
            case _:
                return run, body
        return run, run.state_event()

    async def _trained(self, run: TrainingRun, now: datetime) -> TrainingRun:
        try:
            result = await self._output.read_result(run.uid, run.attempt)
        except UnavailableError:
            raise
        except EnxertoError as error:
            return run.fail(self._encode(error), now=now)
        return run.trained(result.metrics, result.stop_reason, now=now)

    async def _register(self, run: TrainingRun) -> None:
        try:
            result = await self._output.read_result(run.uid, run.attempt)
            registered = await self._registry.register(run, result)
        except UnavailableError:
            raise
        except EnxertoError as error:
            await self._fail(run, error)
            return
        if registered.quarantined:
            gate = ParityGateError(registered.version, result.parity.agreement)
            await self._fail(run, gate, registered.version)
            return
        changed = run.succeed(registered.version, now=self._clock.now())
        await self._save(changed, [(changed.update_time, changed.state_event())])

    async def _cancel(self, run: TrainingRun) -> None:
        state, _ = await self._jobs.state(run.job_id)
        if not state.over:
            if run.uid not in self._stop_sent:
                await self._jobs.stop(run.job_id)
                self._stop_sent.add(run.uid)
            return
        changed = run.cancelled(now=self._clock.now())
        await self._save(changed, [(changed.update_time, changed.state_event())])

    async def _fail(self, run: TrainingRun, error: EnxertoError, model_version: str = "") -> None:
        changed = run.fail(self._encode(error), now=self._clock.now(), model_version=model_version)
        await self._save(changed, [(changed.update_time, changed.state_event())])

    async def _save(self, run: TrainingRun, events: Sequence[tuple[datetime, EventBody]] = ()) -> TrainingRun:
        saved = await self._runs.save(run, events)
        if events:
            self._signals.send(run.uid)
        if run.state.final and run.end_time:
            self._telemetry.run_ended(run.state, (run.end_time - run.create_time).total_seconds())
            self._next_poll.pop(run.uid, None)
            self._faults.pop(run.uid, None)
            self._waiting.discard(run.uid)
            self._stop_sent.discard(run.uid)
            logger.info("run ended", extra={"run": str(run.name), "state": run.state.value})
        return saved

    def _due(self, run: TrainingRun) -> bool:
        """Whether to ask the cluster or the registry again, rather than only read the log."""
        return time.monotonic() >= self._next_poll.get(run.uid, 0.0)
