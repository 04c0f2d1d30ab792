"""The applications that the cluster runs: which ones, and which are on their way out."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from enxerto.inference.domain import Application, ApplicationState, ApplicationStatus, Pool
from enxerto.inference.ports import ReplicaCluster
from enxerto.inference.service.pooling import Pooling
from enxerto.inference.service.routes import Route
from enxerto.kernel.names import DeploymentName, VersionName

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 300.0


@dataclass(slots=True)
class _Leaving:
    """An application that gets no new requests and still has some to finish."""

    application: Application
    done: "asyncio.Task[None]"


@dataclass(slots=True)
class _Revival:
    """What the cluster gave up, and is told to start again."""

    due_s: float
    """By the loop's clock."""
    pause_s: float
    """Until the next one."""


@dataclass(slots=True)
class _Memory:
    """What this process knows besides the cluster; lost with it, and found again."""

    applied: frozenset[Application | Pool] | None = None
    wanted: frozenset[Application] = frozenset()
    """By the deployments, when the cluster was last told."""
    leaving: list[_Leaving] = field(default_factory=list)
    revivals: dict[str, _Revival] = field(default_factory=dict)
    begun_s: dict[str, float] = field(default_factory=dict)
    """When the cluster was told of what it did not have, by `Fleet.seen_s`."""
    looked_s: float | None = None
    """When the cluster was last seen, by the loop's clock; None after something kept this process from looking."""


class Fleet:
    """The one owner of the cluster's list of applications."""

    def __init__(self, cluster: ReplicaCluster, pooling: Pooling, drain_s: float, poke: Callable[[], None]) -> None:
        """Own the list.

        Args:
            cluster: what runs it.
            pooling: of the shared ones.
            drain_s: an application that leaves is removed after so long, whatever it still has to do. Requests end
                by their own deadlines; this is for those whose callers would wait for ever.
            poke: told when one is drained.
        """
        self._cluster = cluster
        self._pooling = pooling
        self._drain_s = drain_s
        self._poke = poke
        self._memory = _Memory()
        self.statuses: Mapping[str, ApplicationStatus] = {}
        """As they were last seen."""
        self.seen_s = 0.0
        """For how long the cluster was in sight: what is being started is not blamed for any other time."""

    def look_away(self) -> None:
        """Count no time until the cluster is seen again."""
        self._memory.looked_s = None

    async def run(self, wanted: Iterable[Application], *, look: bool = True) -> None:
        """Tell the cluster what to run, when that changed or when the cluster forgot it; look how it fares.

        Args:
            wanted: what is to run.
            look: whether to ask the cluster even when nothing changed.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        memory = self._memory
        memory.leaving = [leaving for leaving in memory.leaving if not leaving.done.done()]
        by_name = {leaving.application.name: leaving.application for leaving in memory.leaving}
        by_name |= {application.name: application for application in wanted}
        earlier, memory.wanted = memory.wanted, frozenset(by_name.values())
        hosts = self._pooling.hosts(memory.wanted)
        if memory.wanted == earlier and memory.applied == hosts and not look:
            return
        statuses = await self._cluster.observe()
        given_up = self._given_up(hosts, statuses)
        hosts = frozenset(host for host in hosts if host.name not in given_up)
        new = {host.name for host in hosts} - statuses.keys()
        if memory.applied != hosts or new:
            await self._cluster.apply(sorted(hosts, key=lambda host: host.name))
            memory.applied = hosts
            statuses = await self._cluster.observe()
        self._count_time(hosts, new)
        # Replicas of what the cluster forgot are gone.
        before = {name: status for name, status in self.statuses.items() if name not in new}
        self.statuses = {name: _remembered(before.get(name), status) for name, status in statuses.items()}
        pools = [host.name for host in hosts if isinstance(host, Pool)]
        endpoints = [endpoint for name in pools if name in self.statuses for endpoint in self.statuses[name].endpoints]
        await self._pooling.arrange(endpoints, memory.wanted)

    def _given_up(self, hosts: Collection[Application | Pool], statuses: Mapping[str, ApplicationStatus]) -> set[str]:
        """What is to be left out now, so that the cluster starts it when it is declared again.

        After three failed starts Ray Serve 2.60 starts no more replicas, and to declare the same changes nothing. A new
        version that fails is not wanted any more at the next look; what still is has answered before.
        """
        now, memory = asyncio.get_running_loop().time(), self._memory
        names = {host.name for host in hosts}
        answering = {name for name, status in statuses.items() if status.endpoints}
        memory.revivals = {name: one for name, one in memory.revivals.items() if name in names - answering}
        failed = {name for name in names if _has_failed(statuses.get(name)) and _has_failed(self.statuses.get(name))}
        given_up = set()
        for name in failed:
            revival = memory.revivals.setdefault(name, _Revival(now, _FIRST_PAUSE_S))
            if revival.due_s <= now:
                given_up.add(name)
                revival.due_s, revival.pause_s = now + revival.pause_s, min(2 * revival.pause_s, _LONGEST_PAUSE_S)
                logger.warning("a failed application is started again", extra={"application": name})
        return given_up

    def _count_time(self, hosts: Collection[Application | Pool], new: Collection[str]) -> None:
        """Add the time since the last look, and note what begins now."""
        now, memory = asyncio.get_running_loop().time(), self._memory
        if memory.looked_s is not None:
            self.seen_s += now - memory.looked_s
        memory.looked_s = now
        begun_s = memory.begun_s | dict.fromkeys(new, self.seen_s)
        memory.begun_s = {host.name: begun_s[host.name] for host in hosts if host.name in begun_s}

    def begun_s(self, application: Application) -> float:
        """When the cluster was told to start an application, by `seen_s`."""
        return self._memory.begun_s.get(self._pooling.host(application).name, 0.0)

    def status(self, application: Application) -> ApplicationStatus:
        """How an application fares."""
        host = self._pooling.host(application)
        status = self.statuses.get(host.name, ApplicationStatus(ApplicationState.STARTING))
        return self._pooling.status(application, status) if application.shared else status

    def drains(self, deployment: DeploymentName) -> bool:
        """Whether something of a deployment has requests to finish; the end of that is told."""
        return any(leaving.application.deployment == deployment for leaving in self._memory.leaving)

    def runs(self, deployment: DeploymentName) -> bool:
        """Whether something of a deployment runs, or has requests to finish."""
        prefix = f"{deployment.project}.{deployment.deployment}."
        return self.drains(deployment) or any(name.startswith(prefix) for name in self.statuses)

    def applied(self, deployment: DeploymentName, version: VersionName) -> Application | None:
        """A version's application as the cluster was last told to run it."""
        found = (one for one in self._memory.wanted if (one.deployment, one.version) == (deployment, version))
        return next(found, None)

    def retire(self, application: Application, route: Route) -> None:
        """Remove an application, unless it is wanted again, once the requests of its route have ended."""

        async def drained() -> None:
            try:
                await asyncio.wait_for(route.drained(), self._drain_s)
            except TimeoutError:
                logger.warning(
                    "a version is removed before its requests ended", extra={"application": application.name}
                )
            self._poke()

        self._memory.leaving.append(_Leaving(application, asyncio.ensure_future(drained())))


def _remembered(before: ApplicationStatus | None, now: ApplicationStatus) -> ApplicationStatus:
    """With the replicas that there were, when the cluster does not say which there are."""
    if now.known or before is None:
        return now
    return replace(now, endpoints=before.endpoints, running=before.running)


def _has_failed(status: ApplicationStatus | None) -> bool:
    return status is not None and status.state is ApplicationState.FAILED and not status.endpoints
