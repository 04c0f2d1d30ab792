"""The queue as this process last saw it."""

import logging
import time
from collections.abc import Sequence

from enxerto.kernel.errors import UnavailableError
from enxerto.training.domain import (
    ClusterSize,
    Plan,
    QueueRules,
    QueueStatus,
    RunState,
    TrainingRun,
    own_jobs,
    plan,
    unplaced,
)
from enxerto.training.ports import JobRunner, Telemetry

logger = logging.getLogger(__name__)

_SIZE_AGE_S = 10.0
"""How long the cluster's size, and what others hold of it, are taken for the same."""
_RETRY_S = 2.0


class Queue:
    """Decides who may start, and tells those who ask why a run waits.

    Nothing of it is stored: the plan follows from the stored runs, the cluster's size and what others hold of it.

    Args:
        jobs: tells how large the cluster is and what others hold.
        telemetry: counts.
        rules: the limits.
    """

    def __init__(self, jobs: JobRunner, telemetry: Telemetry, rules: QueueRules) -> None:
        self._jobs = jobs
        self._telemetry = telemetry
        self._rules = rules
        self._size: ClusterSize | None = None
        self._look_again = 0.0
        self._plan = Plan(frozenset(), {})

    async def update(self, active: Sequence[TrainingRun]) -> Plan:
        """Plan anew from every run that is not final, in the order in which they were created."""
        if any(run.state.trains and not run.announced for run in active):
            await self._measure(active)
        return self._decide(active)

    async def catch_up(self, active: Sequence[TrainingRun]) -> None:
        """Plan anew for somebody who asks: with the cluster's size as it is known, so that nobody waits for it."""
        if self._look_again == 0.0:
            await self._measure(active)
        self._decide(active)

    def overlooks(self, run: TrainingRun) -> bool:
        """Whether the run waits and the last plan was made without it: it is new, or this process is."""
        waits = run.state is RunState.QUEUED and not run.announced
        return waits and run.uid not in self._plan.waiting and run.uid not in self._plan.admitted

    def status(self, run: TrainingRun) -> QueueStatus | None:
        """Why the run waits; None when it does not, or the last plan overlooks it."""
        if run.announced:
            return self.unplaced(run) if run.state is RunState.QUEUED and run.waits_for else None
        return self._plan.waiting.get(run.uid) if run.state.trains else None

    def unplaced(self, run: TrainingRun) -> QueueStatus:
        """Why a run waits whose workers Ray does not start."""
        return unplaced(run, self._rules)

    def _decide(self, active: Sequence[TrainingRun]) -> Plan:
        self._plan = plan(active, self._size, self._rules)
        self._telemetry.queue_length(len(self._plan.waiting))
        return self._plan

    async def _measure(self, active: Sequence[TrainingRun]) -> None:
        now = time.monotonic()
        if now < self._look_again:
            return
        try:
            self._size = await self._jobs.size(own_jobs(active))
            self._look_again = now + _SIZE_AGE_S
        except UnavailableError as error:
            if self._size is not None:
                logger.warning("the cluster's size is not known", extra={"error": str(error)})
            self._size = None
            self._look_again = now + _RETRY_S
