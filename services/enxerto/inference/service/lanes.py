"""The versions of every deployment on their way into, and out of, the split of its requests."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from enxerto.inference.domain import (
    Application,
    ApplicationState,
    Deployment,
    DeploymentSpec,
    Endpoint,
    Rollout,
    Scale,
    ServableVersion,
)
from enxerto.inference.errors import NoRoomError, TaskMismatchError, VersionStartError
from enxerto.inference.ports import Meter
from enxerto.inference.service.batching import BatchLimits
from enxerto.inference.service.fleet import Fleet
from enxerto.inference.service.references import References, fault_of
from enxerto.inference.service.routes import Route
from enxerto.inference.service.routing import Canary, Router, Shadow, Split
from enxerto.inference.service.trials import Trials
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import FailedPreconditionError, NotFoundError, UnavailableError
from enxerto.kernel.names import DeploymentName, VersionName

logger = logging.getLogger(__name__)

NewRoute = Callable[[DeploymentName, ServableVersion, BatchLimits], Route]


@dataclass(slots=True)
class _Attempt:
    """What this process knows of a target that is being brought up."""

    since_s: float | None = None
    """By `Fleet.seen_s`; None until the cluster was told of it."""
    replaced: int = 0
    """Replicas of the version before it, as many as there were when the target was first wanted."""


class Lanes:
    """The routes to all versions that are up. A deployment's requests move when its split is replaced."""

    def __init__(
        self,
        *,
        references: References,
        fleet: Fleet,
        trials: Trials,
        router: Router,
        new_route: NewRoute,
        limits: BatchLimits,
        clock: Clock,
        meter: Meter,
        bring_up_s: float,
    ) -> None:
        self._references = references
        self._fleet = fleet
        self._trials = trials
        self._router = router
        self._new_route = new_route
        self._default_limits = limits
        self._clock = clock
        self._meter = meter
        self._bring_up_s = bring_up_s
        self._routes: dict[DeploymentName, dict[VersionName, Route]] = {}
        self._attempts: dict[tuple[DeploymentName, Rollout], _Attempt] = {}
        self._troubles: dict[str, str] = {}
        """Why a trial has to be repeated, by the application's name."""

    def keep(self, living: frozenset[DeploymentName]) -> None:
        """Send nothing more to deployments that are not among these."""
        for name in set(self._routes) - living:
            self._router.remove(name)
            for version, route in self._routes.pop(name).items():
                self._fleet.retire(self._leaving(name, version, route), route)

    def wanted(self, living: Sequence[Deployment]) -> frozenset[Application]:
        """Every application that the deployments need now; of two references the one that wants more counts."""
        attempts = {(deployment.name, rollout) for deployment in living for rollout in deployment.rollouts}
        self._attempts = {key: attempt for key, attempt in self._attempts.items() if key in attempts}
        return frozenset(application for deployment in living for application in self._applications(deployment))

    async def clean(self, wanted: Iterable[Application]) -> None:
        """Give up what was under way for applications that are not wanted any more."""
        names = {application.name for application in wanted}
        self._troubles = {name: text for name, text in self._troubles.items() if name in names}
        await self._trials.keep(names)

    async def settle(self, deployment: Deployment) -> Deployment:
        """Move the deployment's requests to what came up."""
        routes = self._routes.setdefault(deployment.name, {})
        for version, route in routes.items():
            self._follow(deployment, version, route)
            route.gather_by(self._limits(deployment.spec))
        before = [rollout.serving for rollout in deployment.rollouts]
        settled = await asyncio.gather(*(self._advance(deployment, rollout) for rollout in deployment.rollouts))
        now = self._clock.now()
        for rollout in settled:
            deployment = deployment.advance(rollout, now)
        main = routes.get(deployment.main.serving) if deployment.main.serving else None
        deployment = deployment.answer(main is not None and bool(main.endpoints), now)
        self._install(deployment, routes, main)
        moves = sum(old is not None and old != new.serving for old, new in zip(before, settled, strict=True))
        for _ in range(moves):
            self._meter.version_switched()
        return deployment

    def facts(self, deployment: Deployment) -> tuple[ServableVersion, ...]:
        """What is known of the versions that serve a deployment, once all of them are up."""
        routes = self._routes.get(deployment.name, {})
        serving = {rollout.serving for rollout in deployment.rollouts if rollout.serving is not None}
        return tuple(routes[version].version for version in serving) if serving <= routes.keys() else ()

    def _applications(self, deployment: Deployment) -> list[Application]:
        scales = dict.fromkeys(self._routes.get(deployment.name, ()), deployment.spec.scale(1))
        for rollout in deployment.rollouts:
            for version in rollout.versions:
                scale = self._scale(deployment, rollout, version)
                scales[version] = scale.cover(scales.get(version, scale))
        return [_application(deployment, version, scale) for version, scale in scales.items()]

    def _scale(self, deployment: Deployment, rollout: Rollout, version: VersionName) -> Scale:
        """How many replicas a version has for a reference: by its share, and as it comes up as many as it replaces."""
        scale = deployment.spec.scale(deployment.spec.percent(rollout.reference))
        if version != rollout.serving:
            return scale.beginning(self._attempt(deployment, rollout).replaced)
        status = self._fleet.statuses.get(_application(deployment, version, scale).name)
        return scale.beginning() if status is not None and not status.running else scale

    def _attempt(self, deployment: Deployment, rollout: Rollout) -> _Attempt:
        attempt = self._attempts.setdefault((deployment.name, rollout), _Attempt())
        if rollout.serving is not None and not attempt.replaced:
            scale = deployment.spec.scale(deployment.spec.percent(rollout.reference))
            attempt.replaced = self._fleet.status(_application(deployment, rollout.serving, scale)).running
        return attempt

    async def _advance(self, deployment: Deployment, rollout: Rollout) -> Rollout:
        if rollout.attempting and rollout.target is not None:
            try:
                if await self._up(deployment, rollout, rollout.target):
                    logger.info("switched", extra={"deployment": str(deployment.name), "version": str(rollout.target)})
                    rollout = rollout.serve(rollout.target)
            except (FailedPreconditionError, NotFoundError) as error:
                rollout = rollout.fail(fault_of(error))
        if rollout.serving is not None:
            rollout = await self._hold(deployment, rollout, rollout.serving)
        return rollout

    async def _hold(self, deployment: Deployment, rollout: Rollout, version: VersionName) -> Rollout:
        """Bring a version back that served. What it shows while it does not come back, it shows until it does."""
        try:
            up = await self._up(deployment, rollout, version)
        except (FailedPreconditionError, NotFoundError) as error:
            return rollout if rollout.attempting or rollout.fault else rollout.fail(fault_of(error))
        fault = rollout.fault
        return rollout.serve(version) if up and fault and fault.reason != TaskMismatchError.reason else rollout

    async def _up(self, deployment: Deployment, rollout: Rollout, version: VersionName) -> bool:
        """Whether a version has a route: it runs, and passed its trial.

        Raises:
            VersionStartError: it does not come up.
            VersionNotServableError: it came up, and is not what the registry says.
        """
        application = _application(deployment, version, self._scale(deployment, rollout, version))
        routes, status = self._routes[deployment.name], self._fleet.status(application)
        fresh = rollout.serving != version
        if status.state is ApplicationState.FAILED and (fresh or not status.endpoints):
            why = status.message or "the replicas do not start"
            if not (fresh and application.shared):
                raise VersionStartError(version, why)
            # The pool is started again: that it failed is no fault of a version that is new to it.
            self._troubles[application.name] = why
        enough = status.state is ApplicationState.RUNNING and status.running >= application.scale.least
        if status.endpoints and (enough or not fresh):
            if (route := routes.get(version)) is not None:
                # Of one that had a share already, those that were added for the rest of the requests may be on trial.
                if set(status.endpoints) <= set(route.endpoints) or not fresh:
                    return True
            elif (route := await self._tried(deployment, rollout, application, status.endpoints)) is not None:
                routes[version] = route
                self._follow(deployment, version, route)
                return True
        if fresh and self._waited_s(deployment, rollout, application) > self._bring_up_s:
            trouble = self._troubles.get(application.name, "too few replicas answered")
            raise VersionStartError(version, f"{trouble} within {self._bring_up_s:.0f} s")
        return False

    def _waited_s(self, deployment: Deployment, rollout: Rollout, application: Application) -> float:
        """For how long the cluster could bring a target up: it counts from anew when the cluster forgot it."""
        attempt = self._attempt(deployment, rollout)
        if attempt.since_s is None:
            attempt.since_s = self._fleet.seen_s
        return self._fleet.seen_s - max(attempt.since_s, self._fleet.begun_s(application))

    async def _tried(
        self, deployment: Deployment, rollout: Rollout, application: Application, endpoints: Sequence[Endpoint]
    ) -> Route | None:
        """A route to a version that passed its trial; None while that goes on, or has to be repeated.

        One that replaces another takes its requests with all of its replicas. Where nothing answers yet, those that can
        be reached do not wait for one that the cluster has not found dead so far; that one joins when it answers.

        Raises:
            VersionStartError: the trial failed in a way that nobody foresaw, which may not keep others waiting.
            FailedPreconditionError, NotFoundError: see `_begin`.
        """
        version = application.version
        fresh = rollout.serving != version
        whole = fresh and rollout.serving is not None
        try:
            return await self._trials.outcome(
                application.name, lambda: self._begin(deployment, version, endpoints, fresh=fresh, whole=whole)
            )
        except (FailedPreconditionError, NotFoundError):
            raise
        except (UnavailableError, NoRoomError) as error:
            self._troubles[application.name] = error.message
            extra = {"deployment": str(deployment.name), "version": str(version), "error": error.message}
            logger.warning("not yet", extra=extra)
            return None
        except Exception as error:
            extra = {"deployment": str(deployment.name), "version": str(version)}
            logger.exception("a trial failed unforeseen", extra=extra)
            raise VersionStartError(version, f"it could not be tried: {type(error).__name__}") from error

    def _follow(self, deployment: Deployment, version: VersionName, route: Route) -> None:
        """Use the replicas that a version has now; those that join others pass the steps of a fresh version."""
        endpoints = self._fleet.status(_application(deployment, version, deployment.spec.scale(100))).endpoints
        route.follow(
            endpoints, lambda endpoint: self._try(deployment, route.version, (endpoint,), replay=True, whole=True)
        )

    async def _begin(
        self, deployment: Deployment, version: VersionName, endpoints: Sequence[Endpoint], *, fresh: bool, whole: bool
    ) -> Route:
        """A route to a version that has none; see `_try`, `References.facts` and `References.recall`."""
        known = self._references.facts(version) if fresh else self._references.recall(deployment.name, version)
        return await self._try(deployment, await known, endpoints, replay=fresh, whole=whole)

    async def _try(
        self,
        deployment: Deployment,
        version: ServableVersion,
        endpoints: Sequence[Endpoint],
        *,
        replay: bool,
        whole: bool,
    ) -> Route:
        """A route to replicas of a version, after they were warmed up by the way that requests take.

        Those of a fresh version, and those that join others, have to answer its golden inputs too. A version that
        served before a restart has done so: whatever becomes of the file does not take it down.
        """
        spec = deployment.spec
        route = self._new_route(deployment.name, version, self._limits(spec))
        route.connect(endpoints)
        await route.warm_up(spec.warm_up_batch_sizes or (1,), whole=whole)
        if replay and (golden := await self._references.golden(version)) is not None:
            await route.replay(golden, whole=whole)
        return route

    def _install(self, deployment: Deployment, routes: dict[VersionName, Route], main: Route | None) -> None:
        """Send the requests by the deployment's shares, and retire what gets none any more."""
        if main is not None:
            canaries, shadow = self._canaries(deployment, routes, main), self._shadow(deployment, routes, main)
            kept_bytes, rollouts = deployment.spec.response_cache, deployment.rollouts
            self._router.switch(Split(deployment.name, main, canaries, shadow, kept_bytes, rollouts))
        needed = {rollout.serving for rollout in deployment.rollouts}
        for version in set(routes) - needed:
            route = routes.pop(version)
            self._fleet.retire(self._leaving(deployment.name, version, route), route)

    def _canaries(self, deployment: Deployment, routes: dict[VersionName, Route], main: Route) -> tuple[Canary, ...]:
        canaries = []
        for share in deployment.spec.traffic:
            rollout = deployment.companion(share.model_version)
            route = _beside(main, routes, rollout)
            canaries.append(Canary(str(share.model_version), share.percent, route))
        return tuple(canaries)

    def _shadow(self, deployment: Deployment, routes: dict[VersionName, Route], main: Route) -> Shadow | None:
        share = deployment.spec.shadow
        rollout = deployment.companion(share.model_version) if share else None
        route = _beside(main, routes, rollout)
        return None if share is None or route is None else Shadow(share.percent, route)

    def _limits(self, spec: DeploymentSpec) -> BatchLimits:
        defaults, asked = self._default_limits, spec.batching
        return replace(
            defaults,
            max_items=asked.max_size or max((defaults.max_items, *asked.preferred_sizes)),
            max_delay_s=defaults.max_delay_s if asked.max_delay_s is None else asked.max_delay_s,
            preferred_sizes=asked.preferred_sizes,
            default_priority=spec.default_priority,
        )

    def _leaving(self, name: DeploymentName, version: VersionName, route: Route) -> Application:
        """An application as it is while it is drained."""
        applied = self._fleet.applied(name, version)
        return applied or Application(name, version, Scale(max(1, len(route.endpoints))))


def _beside(main: Route, routes: Mapping[VersionName, Route], rollout: Rollout | None) -> Route | None:
    """What answers beside the main version: not itself, and no other task, as while both are being replaced."""
    route = routes.get(rollout.serving) if rollout and rollout.serving else None
    return None if route is None or route is main or route.version.task is not main.version.task else route


def _application(deployment: Deployment, version: VersionName, scale: Scale) -> Application:
    spec = deployment.spec
    return Application(deployment.name, version, scale, spec.device, spec.shared, spec.pinned)
