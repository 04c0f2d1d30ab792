"""Use cases of training runs."""

import uuid
from collections.abc import AsyncIterator, Mapping

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ProjectName, RunName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import RunEvent, RunSpec, RunState, SnapshotState, StateChanged, TrainingRun
from enxerto.training.errors import ServiceStoppingError, SnapshotNotReadyError, StaleRevisionError
from enxerto.training.ports import DatasetStore, Idempotency, RunStore, Telemetry
from enxerto.training.service.reconciler import RUNS
from enxerto.training.service.signals import Signals, wait

_EVENTS_AT_ONCE = 500
# Another process may have written the event, which no signal tells.
_LOOK_AGAIN_S = 2.0


class Runs:
    """Accepts, shows and cancels training runs; the reconciler drives them."""

    def __init__(
        self, runs: RunStore, datasets: DatasetStore, telemetry: Telemetry, signals: Signals, clock: Clock
    ) -> None:
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
        request: Idempotency | None,
    ) -> TrainingRun:
        """Accept a run.

        Args:
            parent: the project.
            run_id: last part of the name; chosen here when empty.
            spec: complete and valid.
            labels: free key-value pairs.
            request: makes the call idempotent.

        Raises:
            NotFoundError: the snapshot is not there.
            SnapshotNotReadyError: it is not READY.
        """
        if request and (earlier := await self._runs.find_request(parent, request)):
            return earlier
        snapshot = await self._datasets.get_snapshot(spec.snapshot)
        if snapshot.state is not SnapshotState.READY:
            raise SnapshotNotReadyError(spec.snapshot, snapshot.state)
        uid, now = uuid.uuid4().hex, self._clock.now()
        run = TrainingRun(
            name=RunName(parent.project, run_id or f"run-{uid[:12]}"),
            uid=uid,
            spec=spec,
            labels=labels,
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

    async def cancel(self, name: RunName) -> TrainingRun:
        """Ask a run to stop.

        Raises:
            RunFinishedError: it has succeeded or failed.
        """
        while True:
            run = await self._runs.get(name)
            changed = run.cancel(now=self._clock.now())
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
