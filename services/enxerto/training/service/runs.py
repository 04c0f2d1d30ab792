"""Use cases of training runs."""

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Mapping

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import UnavailableError, Violations
from enxerto.kernel.names import ProjectName, RunFileName, RunName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import (
    QueueStatus,
    RunEvent,
    RunSpec,
    RunState,
    SnapshotContent,
    SnapshotState,
    StateChanged,
    TrainingRun,
)
from enxerto.training.errors import (
    ModelTaskMismatchError,
    RunFileMissingError,
    ServiceStoppingError,
    SnapshotNotReadyError,
    StaleRevisionError,
    TaskMismatchError,
)
from enxerto.training.ports import DatasetStore, Idempotency, JobOutput, Registry, RunStore, Telemetry
from enxerto.training.service.queue import Queue
from enxerto.training.service.reconciler import RUNS
from enxerto.training.service.signals import Signals, wait

logger = logging.getLogger(__name__)

_EVENTS_AT_ONCE = 500
# Another process may have written the event, which no signal tells.
_LOOK_AGAIN_S = 2.0


async def trainable(datasets: DatasetStore, spec: RunSpec) -> SnapshotContent:
    """The content of the spec's snapshot, when it can be trained on with the spec's base model.

    Raises:
        NotFoundError: the snapshot is not there.
        SnapshotNotReadyError: it is not READY.
        TaskMismatchError: the base model is for another task than the dataset.
    """
    snapshot = await datasets.get_snapshot(spec.snapshot)
    if snapshot.state is not SnapshotState.READY or snapshot.content is None:
        raise SnapshotNotReadyError(spec.snapshot, snapshot.state)
    dataset = await datasets.get_dataset(spec.snapshot.parent)
    if dataset.task is not spec.finetune.task:
        raise TaskMismatchError(spec.base_model, spec.finetune.task, dataset.name, dataset.task)
    return snapshot.content


async def registrable(registry: Registry, spec: RunSpec) -> None:
    """Look, as far as the registry answers now, whether the spec's model takes what is trained.

    Raises:
        ModelTaskMismatchError: the model is there already, for another task.
    """
    if spec.finetune.paints_pictures:
        # Pictures are left, and no version.
        return
    try:
        task = await registry.task_of(spec.model)
    except UnavailableError as error:
        # Training needs no registry until it registers, and then the task is looked at again.
        logger.warning("model is not looked at", extra={"model": str(spec.model), "error": str(error)})
        return
    if task not in (None, spec.finetune.task):
        raise ModelTaskMismatchError(spec.model, task, spec.finetune.task)


class Runs:
    """Accepts, shows, pauses and cancels training runs; the reconciler drives them."""

    def __init__(
        self,
        *,
        runs: RunStore,
        datasets: DatasetStore,
        registry: Registry,
        output: JobOutput,
        queue: Queue,
        telemetry: Telemetry,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._output = output
        self._queue = queue
        self._runs = runs
        self._datasets = datasets
        self._telemetry = telemetry
        self._signals = signals
        self._clock = clock

    async def create(
        self,
        parent: ProjectName,
        run_id: str,
        spec: RunSpec,
        labels: Mapping[str, str],
        *,
        request: Idempotency | None,
        sweep: SweepName | None = None,
    ) -> TrainingRun:
        """Accept a run.

        Args:
            parent: the project.
            run_id: last part of the name; chosen here when empty.
            spec: complete and valid.
            labels: free key-value pairs.
            request: makes the call idempotent.
            sweep: whose trial it is.

        Raises:
            NotFoundError: the snapshot is not there.
            SnapshotNotReadyError: it is not READY.
            TaskMismatchError: the base model is for another task than the dataset.
            ModelTaskMismatchError: the model is there already, for another task.
        """
        if request and (earlier := await self._runs.find_request(parent, request)):
            return earlier
        await trainable(self._datasets, spec)
        await registrable(self._registry, spec)
        uid, now = uuid.uuid4().hex, self._clock.now()
        run = TrainingRun(
            name=RunName(parent.project, run_id or f"run-{uid[:12]}"),
            uid=uid,
            spec=spec,
            labels=labels,
            sweep=sweep,
            create_time=now,
            update_time=now,
        )
        created = await self._runs.create(run, request)
        self._signals.send(RUNS)
        return created

    async def get(self, name: RunName) -> TrainingRun:
        """Read one run."""
        return await self._runs.get(name)

    async def list_page(self, parent: ProjectName, page: PageRequest) -> Page[TrainingRun]:
        """Runs, newest first."""
        return await self._runs.list_runs(parent, page)

    async def queue_status(self, run: TrainingRun) -> QueueStatus | None:
        """Why the run waits; None when it does not."""
        if self._queue.overlooks(run):
            await self._queue.catch_up(await self._runs.list_active())
        return self._queue.status(run)

    async def cancel(self, name: RunName, stop_reason: str = "") -> TrainingRun:
        """Ask a run to stop.

        Raises:
            RunFinishedError: it has succeeded or failed, or is REGISTERING.
        """
        return await self._change(name, lambda run: run.cancel(now=self._clock.now(), stop_reason=stop_reason))

    async def pause(self, name: RunName) -> TrainingRun:
        """Ask a run to stop at its last checkpoint and keep it.

        Raises:
            RunFinishedError: nothing of it is left to pause.
        """
        return await self._change(name, lambda run: run.pause(now=self._clock.now()))

    async def resume(self, name: RunName) -> TrainingRun:
        """Put a paused run into the queue again.

        Raises:
            RunFinishedError: the pause has not ended yet, or the run has.
        """
        return await self._change(name, lambda run: run.resume(now=self._clock.now()))

    async def _change(self, name: RunName, transition: Callable[[TrainingRun], TrainingRun]) -> TrainingRun:
        while True:
            run = await self._runs.get(name)
            changed = transition(run)
            if changed is run:
                return run
            try:
                saved = await self._runs.save(changed, [(changed.update_time, changed.state_event())])
            except StaleRevisionError:
                # The reconciler moved the run on meanwhile: decide again from where it is now.
                continue
            if saved.state is RunState.CANCELLED:
                self._telemetry.run_ended(saved.state, (saved.update_time - saved.create_time).total_seconds())
            self._signals.send(saved.uid)
            self._signals.send(RUNS)
            return saved

    async def download(self, name: RunFileName) -> AsyncIterator[bytes]:
        """The bytes of a file that a run has left.

        Raises:
            NotFoundError: there is no such run.
            RunFileMissingError: the run has not left this file.
        """
        run = await self._runs.get(name.parent)
        found = next((one for one in run.files if one.filename == name.filename), None)
        if found is None:
            raise RunFileMissingError(name)
        async for chunk in self._output.read_blob(found.sha256):
            yield chunk

    async def watch(self, name: RunName, after_cursor: int) -> AsyncIterator[RunEvent]:
        """The run's events after a cursor, then the new ones; ends after the final state.

        Raises:
            InvalidArgumentError: the cursor lies beyond the run's last event.
            ServiceStoppingError: the process drains; ask again with the last cursor.
        """
        run = await self._runs.get(name)
        if after_cursor and not await self._runs.list_events(run.uid, after_cursor - 1, 1):
            violations = Violations()
            violations.add("after_cursor", "lies beyond the run's last event")
            violations.raise_if_any()
        cursor = after_cursor
        with self._signals.listen(run.uid) as woken:
            while True:
                # Read before the events: the final state's own event is then surely among them.
                final = run.state.final
                events = await self._runs.list_events(run.uid, cursor, _EVENTS_AT_ONCE)
                for event in events:
                    yield event
                    cursor = event.cursor
                    if isinstance(event.body, StateChanged) and event.body.state.final:
                        return
                if events:
                    continue
                if final:
                    return
                if self._signals.stopping:
                    raise ServiceStoppingError
                await wait(woken, _LOOK_AGAIN_S)
                run = await self._runs.get(name)
