"""The loop that drives every run that is not final. It may be killed at any point and goes on from what is stored.

A run's attempt is written down before its job is submitted, and the job's id follows from it, so that a repeated
submission is rejected as a duplicate. Events move from the job's log into the store together with the position reached.
Registration repeats with the same request id. A job that is lost is repeated at once, on the part of the cluster that
the run has; a paused run gives its part back and waits in the queue again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, UnavailableError
from enxerto.training.domain import (
    Checkpoint,
    CheckpointSaved,
    ClusterSize,
    EpochCompleted,
    EventBody,
    JobEvent,
    JobFailed,
    JobStarted,
    JobTrained,
    LogLine,
    Plan,
    Progress,
    RunState,
    TrainingRun,
)
from enxerto.training.domain.runs import MAX_LOSSES
from enxerto.training.errors import JobLostError, ParityGateError, RunBrokenError, StaleRevisionError
from enxerto.training.ports import (
    DatasetStore,
    JobOutput,
    JobRunner,
    Registered,
    Registry,
    RunStore,
    StatusEncoder,
    Telemetry,
)
from enxerto.training.service.queue import Queue
from enxerto.training.service.signals import Signals, wait
from enxerto.training.service.weights import WeightsSupply

logger = logging.getLogger(__name__)

RUNS = "runs"
"""Signal: a run was created, cancelled, paused or resumed."""
_IDLE_S = 5.0
_MAX_FAULTS = 20
_PLACED_WITHIN = timedelta(seconds=60)
"""What it may take workers to start before people are told: Ray finds them a place, and they import torch."""

Events = list[tuple[datetime, EventBody]]


class Reconciler:
    """Moves runs towards a final state.

    Args:
        runs: what is being driven.
        datasets: where the runs' snapshots are.
        jobs: the cluster.
        output: what jobs write.
        registry: where versions go.
        queue: who may start.
        weights: what was imported by hand.
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
        queue: Queue,
        weights: WeightsSupply,
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
        self._queue = queue
        self._weights = weights
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
            plan = await self._queue.update(active)
        except UnavailableError as error:
            logger.warning("runs cannot be listed", extra={"error": str(error)})
            return 1
        await asyncio.gather(*(self._guarded(run, plan) for run in active))
        return sum(run.state is not RunState.PAUSED for run in active)

    async def _guarded(self, run: TrainingRun, plan: Plan) -> None:
        try:
            if await self._drive(run, plan):
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
                await self._tell(run, error)
        except Exception:
            # One broken run must not stop the others.
            faults = self._faults[run.uid] = self._faults.get(run.uid, 0) + 1
            logger.exception("run cannot be driven", extra={"run": run.uid, "faults": faults})
            if faults >= _MAX_FAULTS:
                with contextlib.suppress(StaleRevisionError, UnavailableError):
                    await self._fail(run, RunBrokenError(run.name, run.uid))

    async def _tell(self, run: TrainingRun, error: UnavailableError) -> None:
        """Let watchers know what a run waits for; what cannot be written down either is in the service's log."""
        with contextlib.suppress(EnxertoError):
            await self._save(run, [(self._clock.now(), LogLine("WARNING", f"waits, and tries again: {error}"))])

    async def _drive(self, run: TrainingRun, plan: Plan) -> bool:
        """Move one run on; returns whether anything outside was asked."""
        if run.state is RunState.PAUSED:
            return False
        if run.state in (RunState.CANCELLING, RunState.PAUSING):
            await self._stop(run)
        elif run.submitted and run.state is not RunState.REGISTERING:
            await self._follow(run)
        elif run.state is RunState.QUEUED and not run.announced and run.uid not in plan.admitted:
            await self._wait(run)
        elif not self._due(run):
            return False
        elif run.state is RunState.REGISTERING:
            await self._register(run)
        else:
            await self._submit(run, plan.size)
        return True

    async def _wait(self, run: TrainingRun) -> None:
        status = self._queue.status(run)
        if status is None or run.waits_for == status.reason:
            return
        now = self._clock.now()
        line = LogLine("INFO", f"waits in the queue at place {status.position}: {status.message}")
        await self._save(run.wait(status.reason, now=now), [(now, line)])

    async def _submit(self, run: TrainingRun, size: ClusterSize | None) -> None:
        snapshot = await self._datasets.get_snapshot(run.spec.snapshot)
        assert snapshot.content is not None, "runs are accepted for READY snapshots only"
        weights = await self._weights.supply(run.spec.finetune)
        if not run.announced:
            queued = run.update_time if run.state is RunState.QUEUED else None
            run = await self._announce(run, size)
            if queued is not None:
                since = run.create_time if run.attempt == 1 else queued
                self._telemetry.run_waited((run.update_time - since).total_seconds())
        try:
            await self._jobs.submit(run, snapshot.content, weights, snapshot.warnings)
        except UnavailableError:
            raise
        except EnxertoError as error:
            await self._fail(run, error)
            return
        logger.info("job submitted", extra={"run": str(run.name), "job": run.job_id})
        now = self._clock.now()
        lines = [LogLine("INFO", f"attempt {run.attempt} was submitted to the cluster")]
        if run.attempt == 1:
            lines += [LogLine("WARNING", f"data: {warning}") for warning in snapshot.warnings]
        await self._save(run.accepted(now=now), [(now, line) for line in lines])

    async def _announce(self, run: TrainingRun, size: ClusterSize | None) -> TrainingRun:
        now, workers = self._clock.now(), run.spec.num_workers
        use_gpu = size.has_gpus_for(workers) if size else run.use_gpu
        lines: Events = []
        if size and size.gpus and not use_gpu:
            text = f"trains on CPUs: {workers} workers need a GPU each, and the cluster has {size.gpus:g}"
            lines.append((now, LogLine("WARNING", text)))
        return await self._save(run.attempt_next(now=now, use_gpu=use_gpu), lines)

    async def _follow(self, run: TrainingRun) -> None:
        run = await self._tail(run)
        if not run.state.trains or not self._due(run):
            return
        self._next_poll[run.uid] = time.monotonic() + self._poll_s
        state, message = await self._jobs.state(run.job_id)
        if not state.over:
            await self._notice_unplaced(run)
            return
        # Its last words may have come after the first look.
        run = await self._tail(run)
        if run.state.trains:
            await self._lost(run, message)

    async def _notice_unplaced(self, run: TrainingRun) -> None:
        """Say once of an attempt that Ray does not start its workers: nothing else has touched the run meanwhile."""
        now = self._clock.now()
        if run.log_seq or run.waits_for or now - run.update_time < _PLACED_WITHIN:
            return
        status = self._queue.unplaced(run)
        await self._save(run.wait(status.reason, now=now), [(now, LogLine("WARNING", f"waits: {status.message}"))])

    async def _lost(self, run: TrainingRun, message: str) -> None:
        logger.warning("job lost", extra={"run": str(run.name), "job": run.job_id, "cluster_says": message})
        now = self._clock.now()
        lost = run.lose(now=now)
        if lost.losses >= MAX_LOSSES:
            await self._fail(lost, JobLostError(run.name, lost.losses, message))
            return
        line = LogLine("WARNING", f"attempt {run.attempt} ended without a result and is repeated: {message}")
        await self._save(lost, [(now, line)])

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
            if not (changed.state.trains or changed.state is RunState.PAUSING):
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
            case JobStarted() | JobFailed() if run.state is RunState.PAUSING:
                # What a job says that is being stopped means no more than that it was stopped.
                return run, None
            case JobStarted() if run.state is RunState.RUNNING:
                return run, LogLine("WARNING", "the workers were started again")
            case JobStarted():
                run = run.start(now=entry.time)
            case JobTrained():
                run = await self._trained(run, now)
            case CheckpointSaved():
                checkpoint = Checkpoint(body.phase, body.epoch, body.size_bytes, entry.time, body.step)
                return run.saved(checkpoint, now=now), body
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
            # What leaves pictures and no network, as Gatys' optimisation, has nothing to register.
            registered = await self._registry.register(run, result) if result.artifacts else Registered("", False)
        except UnavailableError:
            raise
        except EnxertoError as error:
            await self._fail(run, error)
            return
        if registered.quarantined:
            gate = ParityGateError(registered.version, result.parity.agreement if result.parity else 0.0)
            await self._fail(run, gate, registered.version)
            return
        changed = run.succeed(registered.version, result.files, now=self._clock.now())
        await self._save(changed, [(changed.update_time, changed.state_event())])

    async def _stop(self, run: TrainingRun) -> None:
        """Bring a run that is to be cancelled or paused to where nothing of it runs."""
        state, _ = await self._jobs.state(run.job_id)
        if not state.over:
            if run.job_id not in self._stop_sent:
                await self._jobs.stop(run.job_id)
                self._stop_sent.add(run.job_id)
            return
        if run.state is RunState.PAUSING:
            # The last checkpoint may be among its last words, and so may be that it has just ended well.
            run = await self._tail(run)
            if run.state is not RunState.PAUSING:
                return
        now = self._clock.now()
        changed = run.cancelled(now=now) if run.state is RunState.CANCELLING else run.paused(now=now)
        self._stop_sent.discard(run.job_id)
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
            self._stop_sent.discard(run.job_id)
            logger.info("run ended", extra={"run": str(run.name), "state": run.state.value})
        return saved

    def _due(self, run: TrainingRun) -> bool:
        """Whether to ask the cluster or the registry again, rather than only read the log."""
        return time.monotonic() >= self._next_poll.get(run.uid, 0.0)
