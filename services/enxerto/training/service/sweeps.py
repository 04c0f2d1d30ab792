"""Use cases of sweeps."""

import uuid
from collections.abc import Mapping

from enxerto.kernel.clock import Clock
from enxerto.kernel.names import ProjectName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import Sweep, SweepPlan
from enxerto.training.errors import StaleRevisionError
from enxerto.training.ports import DatasetStore, Idempotency, Registry, SweepStore
from enxerto.training.service.runs import registrable, trainable
from enxerto.training.service.signals import Signals

SWEEPS = "sweeps"
"""Signal: a sweep was created or cancelled."""


class Sweeps:
    """Accepts, shows and cancels sweeps; `SweepDriver` drives them."""

    def __init__(
        self, sweeps: SweepStore, datasets: DatasetStore, registry: Registry, signals: Signals, clock: Clock
    ) -> None:
        self._sweeps = sweeps
        self._datasets = datasets
        self._registry = registry
        self._signals = signals
        self._clock = clock

    async def create(
        self,
        parent: ProjectName,
        sweep_id: str,
        plan: SweepPlan,
        labels: Mapping[str, str],
        request: Idempotency | None,
    ) -> Sweep:
        """Accept a sweep.

        Raises:
            NotFoundError: the snapshot is not there.
            SnapshotNotReadyError: it is not READY.
            TaskMismatchError: the base model is for another task than the dataset.
            ModelTaskMismatchError: the model is there already, for another task.
        """
        if request and (earlier := await self._sweeps.find_request(parent, request)):
            return earlier
        await trainable(self._datasets, plan.spec)
        await registrable(self._registry, plan.spec)
        uid, now = uuid.uuid4().hex, self._clock.now()
        name = SweepName(parent.project, sweep_id or f"sweep-{uid[:12]}")
        sweep = Sweep(name=name, uid=uid, plan=plan, labels=labels, create_time=now, update_time=now)
        created = await self._sweeps.create(sweep, request)
        self._signals.send(SWEEPS)
        return created

    async def get(self, name: SweepName) -> Sweep:
        """Read one sweep."""
        return await self._sweeps.get(name)

    async def list_page(self, parent: ProjectName, page: PageRequest) -> Page[Sweep]:
        """Sweeps, newest first."""
        return await self._sweeps.list_sweeps(parent, page)

    async def cancel(self, name: SweepName) -> Sweep:
        """Ask a sweep and its trials to stop.

        Raises:
            SweepFinishedError: it has succeeded or failed.
        """
        while True:
            sweep = await self._sweeps.get(name)
            changed = sweep.cancel(now=self._clock.now())
            if changed is sweep:
                return sweep
            try:
                saved = await self._sweeps.save(changed)
            except StaleRevisionError:
                # The driver moved the sweep on meanwhile: decide again from where it is now.
                continue
            self._signals.send(SWEEPS)
            return saved
