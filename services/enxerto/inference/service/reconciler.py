"""Makes what runs agree with what was asked for, over and over.

One tick reads the deployments, follows their aliases, tells the cluster which applications to run, and moves traffic to
those that came up. Everything that it needs is in the database and in the cluster, so a restart of this process or of
the cluster is only a difference for the next tick.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enxerto.inference.domain import (
    Application,
    ApplicationState,
    ApplicationStatus,
    Deployment,
    Fault,
    FaultKind,
    ServableVersion,
    State,
)
from enxerto.inference.errors import DeploymentChangedError, DeploymentNotFoundError
from enxerto.inference.ports import DeploymentStore, Meter, ModelRegistry, ReplicaCluster, Replicas
from enxerto.inference.service.routing import Route, Router
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, FailedPreconditionError, NotFoundError, UnavailableError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference

logger = logging.getLogger(__name__)

NewRoute = Callable[[DeploymentName, ServableVersion], Route]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how long."""

    poll_s: float = 1.0
    """Between ticks when nothing is under way: how soon an alias is followed."""
    busy_poll_s: float = 0.2
    """Between ticks while a version is brought up."""
    bring_up_s: float = 300.0
    """A version that does not answer after so long has failed."""
    drain_s: float = 60.0
    """Requests of an old version may take so long before it is removed."""


@dataclass(slots=True)
class _Leaving:
    """An application that gets no new requests and still has some to finish."""

    application: Application
    done: "asyncio.Task[None]"


@dataclass(slots=True)
class _Memory:
    """What this process knows besides the database; lost with it, and found again."""

    versions: dict[VersionName, ServableVersion] = field(default_factory=dict)
    applied: frozenset[Application] | None = None
    leaving: list[_Leaving] = field(default_factory=list)
    since: dict[Application, float] = field(default_factory=dict)


class Reconciler:
    """The one owner of the cluster's applications and of the routes."""

    def __init__(
        self,
        *,
        store: DeploymentStore,
        registry: ModelRegistry,
        cluster: ReplicaCluster,
        replicas: Replicas,
        router: Router,
        new_route: NewRoute,
        clock: Clock,
        meter: Meter,
        pace: Pace,
    ) -> None:
        self._store = store
        self._registry = registry
        self._cluster = cluster
        self._replicas = replicas
        self._router = router
        self._new_route = new_route
        self._clock = clock
        self._meter = meter
        self._pace = pace
        self._poked = asyncio.Event()
        self._memory = _Memory()
        self._busy = False
        self.synced = False
        """Whether the routes of all deployments were looked at once."""

    def poke(self) -> None:
        """Look again at once: something changed, or broke."""
        self._poked.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._poked.clear()
            try:
                await self.tick()
            except UnavailableError as error:
                logger.warning("cannot reconcile now", extra={"error": error.message})
                self._busy = False
            except Exception:
                # A tick that fails must not end the service: routes that exist go on answering.
                logger.exception("a tick of the reconciler failed")
                self._busy = False
            pause = self._pace.busy_poll_s if self._busy else self._pace.poll_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), pause)
                # A burst of pokes, such as many failing requests, makes one tick.
                await asyncio.sleep(self._pace.busy_poll_s / 4)

    async def tick(self) -> None:
        """Look once and do what can be done now.

        Raises:
            UnavailableError: the database or the cluster cannot be reached.
        """
        deployments = list(await self._store.all())
        living = [deployment for deployment in deployments if deployment.state is not State.DELETING]
        self._router.expect(frozenset(deployment.name for deployment in living))
        self._drop_routes({deployment.name for deployment in living})
        living = list(await asyncio.gather(*(self._follow(deployment) for deployment in living)))
        wanted = self._wanted(living)
        statuses = await self._apply(wanted)
        settled = await asyncio.gather(*(self._settle(deployment, statuses) for deployment in living))
        await self._forget(deployments, statuses)
        await self._replicas.keep(frozenset(end for status in statuses.values() for end in status.endpoints))
        counts = Counter(deployment.state for deployment in settled)
        self._meter.deployments({state: counts.get(state, 0) for state in State})
        leaving = len(deployments) != len(living) or bool(self._memory.leaving)
        moving = any(d.attempting or d.state is State.DEPLOYING for d in settled)
        self._busy = moving or leaving or wanted != self._wanted(settled)
        self.synced = True

    async def _follow(self, deployment: Deployment) -> Deployment:
        """Find out what the deployment's reference means now."""
        reference = deployment.spec.model_version
        known = _numbered(reference)
        if known is not None and known in self._memory.versions:
            return await self._write(deployment, deployment.aim(known, self._clock.now()))
        try:
            version = await self._registry.resolve(reference)
        except UnavailableError as error:
            logger.warning("registry is away", extra={"deployment": str(deployment.name), "error": error.message})
            return deployment
        except (NotFoundError, FailedPreconditionError) as error:
            return await self._write(deployment, deployment.lose_alias(_fault(error), self._clock.now()))
        self._memory.versions[version.name] = version
        aimed = deployment.aim(version.name, self._clock.now())
        if aimed is not deployment:
            logger.info("new target", extra={"deployment": str(deployment.name), "version": str(version.name)})
        return await self._write(deployment, aimed)

    def _wanted(self, living: Sequence[Deployment]) -> frozenset[Application]:
        wanted = {leaving.application for leaving in self._memory.leaving if not leaving.done.done()}
        names = {application.name for application in wanted}
        for deployment in living:
            versions = [deployment.serving] if deployment.serving else []
            if (route := self._router.get(deployment.name)) is not None:
                versions.append(route.version.name)
            if deployment.attempting and deployment.target:
                versions.append(deployment.target)
            for version in versions:
                application = Application(deployment.name, version, deployment.spec.replicas)
                if application.name not in names:
                    names.add(application.name)
                    wanted.add(application)
        return frozenset(wanted)

    async def _apply(self, wanted: frozenset[Application]) -> Mapping[str, ApplicationStatus]:
        """Tell the cluster what to run, when that changed or when the cluster forgot it."""
        memory = self._memory
        memory.leaving = [leaving for leaving in memory.leaving if not leaving.done.done()]
        statuses: Mapping[str, ApplicationStatus] = {}
        if memory.applied == wanted:
            statuses = await self._cluster.observe()
        if memory.applied != wanted or any(application.name not in statuses for application in wanted):
            await self._cluster.apply(sorted(wanted, key=lambda application: application.name))
            memory.applied = wanted
            statuses = await self._cluster.observe()
        now = asyncio.get_running_loop().time()
        memory.since = {application: memory.since.get(application, now) for application in wanted}
        return statuses

    async def _settle(self, deployment: Deployment, statuses: Mapping[str, ApplicationStatus]) -> Deployment:
        """Bring the route of one deployment up to date with what runs."""
        try:
            changed = await self._settled(deployment, statuses)
        except UnavailableError as error:
            logger.warning("not yet", extra={"deployment": str(deployment.name), "error": error.message})
            changed = deployment
        except FailedPreconditionError as error:
            changed = self._failed(deployment, _fault(error))
        except DeploymentNotFoundError:
            self.poke()
            changed = deployment
        return await self._write(deployment, changed)

    async def _settled(self, deployment: Deployment, statuses: Mapping[str, ApplicationStatus]) -> Deployment:
        route = self._router.get(deployment.name)
        if route is not None:
            route.connect(self._status(deployment, route.version.name, statuses).endpoints)
        if deployment.attempting and deployment.target is not None:
            status = self._status(deployment, deployment.target, statuses)
            if status.state is ApplicationState.RUNNING and status.endpoints:
                await self._switch(deployment, deployment.target, status)
                return await self._record(deployment.name, deployment.target)
            waited = self._waited(deployment, deployment.target)
            if status.state is ApplicationState.FAILED or waited > self._pace.bring_up_s:
                message = status.message or f"no replica answered within {self._pace.bring_up_s:.0f} s"
                text = f"{deployment.target}: {message}"
                fault = Fault(FaultKind.FAILED_PRECONDITION, "VERSION_FAILED_TO_START", text)
                deployment = self._failed(deployment, fault)
        if deployment.serving is None:
            return deployment
        status = self._status(deployment, deployment.serving, statuses)
        if status.endpoints:
            await self._switch(deployment, deployment.serving, status)
            return deployment.serve(deployment.serving, self._clock.now())
        return deployment.suspend(self._clock.now())

    def _status(
        self, deployment: Deployment, version: VersionName, statuses: Mapping[str, ApplicationStatus]
    ) -> ApplicationStatus:
        name = Application(deployment.name, version, deployment.spec.replicas).name
        return statuses.get(name, ApplicationStatus(ApplicationState.STARTING))

    def _waited(self, deployment: Deployment, version: VersionName) -> float:
        now = asyncio.get_running_loop().time()
        return now - self._memory.since.get(Application(deployment.name, version, deployment.spec.replicas), now)

    def _failed(self, deployment: Deployment, fault: Fault) -> Deployment:
        extra = {"deployment": str(deployment.name), "version": str(deployment.target), "error": fault.message}
        logger.error("a version failed to come up", extra=extra)
        self._meter.version_failed()
        return deployment.fail(fault, self._clock.now())

    async def _switch(self, deployment: Deployment, version: VersionName, status: ApplicationStatus) -> None:
        """Send the deployment's requests to a version that runs, after it was warmed up."""
        route = self._router.get(deployment.name)
        if route is not None and route.version.name == version:
            return
        facts = self._memory.versions.get(version)
        if facts is None:
            reference = VersionReference(version.project, version.model, str(version.number))
            facts = self._memory.versions[version] = await self._registry.resolve(reference)
        fresh = self._new_route(deployment.name, facts)
        fresh.connect(status.endpoints)
        await fresh.warm_up()
        old = self._router.switch(deployment.name, fresh)
        logger.info("switched", extra={"deployment": str(deployment.name), "version": str(version)})
        if old is not None:
            self._meter.version_switched()
            self._drain(Application(deployment.name, old.version.name, deployment.spec.replicas), old)

    async def _record(self, name: DeploymentName, version: VersionName) -> Deployment:
        """Store that `version` serves, over whatever a user changed meanwhile: the traffic has moved already."""
        while True:
            current = await self._store.get(name)
            with contextlib.suppress(DeploymentChangedError):
                return await self._store.replace(current.serve(version, self._clock.now()))

    def _drain(self, application: Application, route: Route) -> None:
        async def drained() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(route.drained(), self._pace.drain_s)
            self.poke()

        self._memory.leaving.append(_Leaving(application, asyncio.ensure_future(drained())))

    def _drop_routes(self, living: set[DeploymentName]) -> None:
        for name in self._router.names() - living:
            route = self._router.remove(name)
            if route is not None:
                self._drain(Application(name, route.version.name, max(1, len(route.endpoints))), route)

    async def _forget(self, deployments: Sequence[Deployment], statuses: Mapping[str, ApplicationStatus]) -> None:
        """Remove what was deleted, once nothing of it runs."""
        for deployment in deployments:
            prefix = f"{deployment.name.project}.{deployment.name.deployment}."
            if deployment.state is State.DELETING and not any(name.startswith(prefix) for name in statuses):
                await self._store.remove(deployment.name)

    async def _write(self, before: Deployment, after: Deployment) -> Deployment:
        """Store a transition. What changed or vanished meanwhile stays as it was read, for the next tick to see."""
        if after == before or after.revision != before.revision:
            return after
        try:
            return await self._store.replace(after)
        except (DeploymentChangedError, DeploymentNotFoundError):
            self.poke()
            return before


def _numbered(reference: VersionReference) -> VersionName | None:
    return VersionName(reference.project, reference.model, reference.number) if reference.number else None


def _fault(error: EnxertoError) -> Fault:
    kind = FaultKind.NOT_FOUND if isinstance(error, NotFoundError) else FaultKind.FAILED_PRECONDITION
    return Fault(kind, error.reason, error.message)
