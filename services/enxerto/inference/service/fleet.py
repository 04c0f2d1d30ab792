"""The applications that the cluster runs: which ones, and which are on their way out."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from enxerto.inference.domain import Application, ApplicationState, ApplicationStatus, Pool
from enxerto.inference.ports import ReplicaCluster
from enxerto.inference.service.pooling import Pooling
from enxerto.inference.service.routes import Route
from enxerto.kernel.names import DeploymentName, VersionName

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Leaving:
    """An application that gets no new requests and still has some to finish."""

    application: Application
    done: "asyncio.Task[None]"


@dataclass(slots=True)
class _Memory:
    """What this process knows besides the cluster; lost with it, and found again."""

    applied: frozenset[Application | Pool] | None = None
    wanted: frozenset[Application] = frozenset()
    """By the deployments, when the cluster was last told."""
    leaving: list[_Leaving] = field(default_factory=list)


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
        before, memory.wanted = memory.wanted, frozenset(by_name.values())
        applications = self._pooling.hosts(memory.wanted)
        if memory.wanted == before and memory.applied == applications and not look:
            return
        hosts = {application.name for application in applications}
        statuses: Mapping[str, ApplicationStatus] = {}
        if memory.applied == applications:
            statuses = await self._cluster.observe()
        if memory.applied != applications or any(name not in statuses for name in hosts):
            await self._cluster.apply(sorted(applications, key=lambda application: application.name))
            memory.applied = applications
            statuses = await self._cluster.observe()
        self.statuses = {name: self._remembered(name, status) for name, status in statuses.items()}
        pools = [one.name for one in applications if isinstance(one, Pool)]
        endpoints = [endpoint for name in pools if name in self.statuses for endpoint in self.statuses[name].endpoints]
        await self._pooling.arrange(endpoints, memory.wanted)

    def _remembered(self, name: str, status: ApplicationStatus) -> ApplicationStatus:
        """With the replicas that there were, when the cluster does not say which there are."""
        before = self.statuses.get(name)
        if status.known or before is None:
            return status
        return replace(status, endpoints=before.endpoints, running=before.running)

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
