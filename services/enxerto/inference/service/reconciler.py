"""Makes what runs agree with what was asked for, over and over.

One tick reads the deployments, follows their aliases, tells the cluster which applications to run, and moves traffic to
those that came up. Everything that it needs is in the database and in the cluster, so a restart of this process or of
the cluster is only a difference for the next tick.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from enxerto.inference.domain import Deployment, Rollout, State
from enxerto.inference.errors import DeploymentChangedError, DeploymentNotFoundError
from enxerto.inference.ports import DeploymentStore, Meter, Replicas
from enxerto.inference.service.fleet import Fleet
from enxerto.inference.service.lanes import Lanes
from enxerto.inference.service.references import References
from enxerto.inference.service.routing import Router
from enxerto.inference.service.shadowing import Shadowing
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import UnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how long."""

    poll_s: float = 1.0
    """Between ticks when nothing is under way: how soon an alias is followed."""
    busy_poll_s: float = 0.2
    """Between ticks while a version is brought up."""
    bring_up_s: float = 300.0
    """A version that does not answer after so long has failed."""
    drain_s: float = 3600.0
    """An old version is removed once its requests have ended, by their deadlines at the latest; or after so long."""
    look_s: float = 5.0
    """Between looks at the replicas when nothing is under way and no call failed."""
    patience_s: float = 1.0
    """A tick waits so long for the trial of a version; a longer one goes on beside it."""


class Reconciler:
    """The loop behind all deployments."""

    def __init__(
        self,
        *,
        store: DeploymentStore,
        references: References,
        fleet: Fleet,
        lanes: Lanes,
        replicas: Replicas,
        router: Router,
        clock: Clock,
        meter: Meter,
        pace: Pace,
        shadowing: Shadowing,
        poked: asyncio.Event,
    ) -> None:
        self._store = store
        self._references = references
        self._fleet = fleet
        self._lanes = lanes
        self._replicas = replicas
        self._router = router
        self._clock = clock
        self._meter = meter
        self._pace = pace
        self._shadowing = shadowing
        self._poked = poked
        self._busy = False
        self._settled: list[Deployment] = []
        self.synced = False
        """Whether the routes of all deployments were looked at once."""

    def poke(self) -> None:
        """Look again at once: something changed, or broke."""
        self._poked.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        loop, look_at = asyncio.get_running_loop(), 0.0
        while True:
            look = self._busy or self._poked.is_set() or loop.time() >= look_at
            self._poked.clear()
            try:
                await self.tick(look=look)
                if look:
                    look_at = loop.time() + self._pace.look_s
            except UnavailableError as error:
                logger.warning("cannot reconcile now", extra={"error": error.message})
                self._busy, look_at = False, 0.0
            except Exception:
                # A tick that fails must not end the service: routes that exist go on answering.
                logger.exception("a tick of the reconciler failed")
                self._busy, look_at = False, 0.0
            pause = self._pace.busy_poll_s if self._busy else self._pace.poll_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), pause)
                # A burst of pokes, such as many failing requests, makes one tick.
                await asyncio.sleep(self._pace.busy_poll_s / 4)

    async def tick(self, *, look: bool = True) -> None:
        """Do once what can be done now.

        Args:
            look: whether to ask the cluster how its applications fare even if no deployment changed.

        Raises:
            UnavailableError: the database or the cluster cannot be reached.
        """
        try:
            await self._tick(look)
        except BaseException:
            self._fleet.look_away()
            raise

    async def _tick(self, look: bool) -> None:
        announced = self._router.announced
        deployments = list(await self._store.all())
        living = [deployment for deployment in deployments if deployment.state is not State.DELETING]
        names = frozenset(deployment.name for deployment in living)
        self._router.expect(names, announced)
        self._lanes.keep(names)
        self._shadowing.forget(names)
        followed = await self._references.follow(living)
        living = list(await asyncio.gather(*map(self._write, living, followed)))
        if not look and living == self._settled:
            return
        wanted = self._lanes.wanted(living)
        await self._fleet.run(wanted, look=look)
        settled = self._settled = await self._settle_all(living)
        await self._lanes.clean(wanted)
        await self._forget(deployments)
        statuses = self._fleet.statuses
        await self._replicas.keep(frozenset(end for status in statuses.values() for end in status.endpoints))
        await self._references.keep({deployment.name: self._lanes.facts(deployment) for deployment in settled})
        counts = Counter(deployment.state for deployment in settled)
        self._meter.deployments({state: counts.get(state, 0) for state in State})
        moving = any(map(_is_moving, settled))
        # What still has requests to finish pokes when they have ended.
        deleting = any(one.state is State.DELETING and not self._fleet.drains(one.name) for one in deployments)
        self._busy = moving or deleting or wanted != self._lanes.wanted(settled)
        self.synced = True

    async def _settle_all(self, living: Sequence[Deployment]) -> list[Deployment]:
        """Each by itself: what nobody foresaw of one keeps no other waiting."""
        outcomes = await asyncio.gather(*map(self._settle, living), return_exceptions=True)
        settled = []
        for deployment, outcome in zip(living, outcomes, strict=True):
            if isinstance(outcome, UnavailableError) or not isinstance(outcome, Deployment | Exception):
                raise outcome
            if isinstance(outcome, Exception):
                extra = {"deployment": str(deployment.name)}
                logger.error("a deployment could not be settled", extra=extra, exc_info=outcome)
            settled.append(outcome if isinstance(outcome, Deployment) else deployment)
        return settled

    async def _settle(self, deployment: Deployment) -> Deployment:
        """Bring the routes of one deployment up to date with what runs."""
        try:
            changed = await self._lanes.settle(deployment)
            if any(before.serving != after.serving for before, after in _pairs(deployment, changed)):
                recorded = await self._record(changed)
                self._count(deployment, changed)
                return recorded
        except DeploymentNotFoundError:
            self.poke()
            return deployment
        found = self._shadowing.take(deployment.name)
        if found is None:
            return await self._write(deployment, changed)
        written = await self._write(deployment, changed.compare(found, self._clock.now()))
        if written is deployment:
            self._shadowing.give_back(deployment.name, found)
        return written

    async def _record(self, moved: Deployment) -> Deployment:
        """Store which versions serve, over whatever a user changed meanwhile: the requests have moved already."""
        changed = moved
        while True:
            try:
                return await self._store.replace(changed)
            except DeploymentChangedError:
                self.poke()
            current, now = await self._store.get(moved.name), self._clock.now()
            changed = current
            for rollout in (current.main, *current.companions):
                found = moved.main if rollout is current.main else moved.companion(rollout.reference)
                if found is not None and found.serving is not None:
                    changed = changed.advance(rollout.serve(found.serving), now)
            changed = changed.answer(moved.state is State.READY, now)

    async def _forget(self, deployments: Sequence[Deployment]) -> None:
        """Remove what was deleted, once nothing of it runs."""
        for deployment in deployments:
            if deployment.state is State.DELETING and not self._fleet.runs(deployment.name):
                await self._store.remove(deployment.name)

    async def _write(self, before: Deployment, after: Deployment) -> Deployment:
        """Store a transition. What changed or vanished meanwhile stays as it was read, for the next tick to see."""
        if after == before or after.revision != before.revision:
            return after
        try:
            written = await self._store.replace(after)
        except (DeploymentChangedError, DeploymentNotFoundError):
            self.poke()
            return before
        self._count(before, after)
        return written

    def _count(self, before: Deployment, after: Deployment) -> None:
        """Show the versions that were found wanting in a transition, once it is stored: later ticks find no other."""
        for was, now in _pairs(before, after):
            if now.fault is not None and now.fault != was.fault:
                about = {"deployment": str(after.name), "version": str(now.target or now.reference)}
                logger.error("a version cannot be served", extra={**about, "error": now.fault.message})
                self._meter.version_failed()


def _is_moving(deployment: Deployment) -> bool:
    """Whether something comes up soon; what shows why it does not come back needs no hurry."""
    return deployment.attempting or (deployment.state is State.DEPLOYING and deployment.fault is None)


def _pairs(before: Deployment, after: Deployment) -> list[tuple[Rollout, Rollout]]:
    return list(zip(before.rollouts, after.rollouts, strict=True))
