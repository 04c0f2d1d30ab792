"""Which version answers for which deployment."""

import random
from dataclasses import dataclass

from enxerto.inference.domain import Payload, Rollout, place
from enxerto.inference.errors import DeploymentNotFoundError, DeploymentNotReadyError
from enxerto.inference.service.caching import ResponseCaches
from enxerto.inference.service.routes import Route
from enxerto.kernel.names import DeploymentName, VersionName

Wanted = int | VersionName
"""A version that a caller insists on: one of that number, or exactly that one."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that answers a share of the requests."""

    identity: str
    """Stays while the share stands, whatever version it leads to: keys are placed by it."""
    percent: int
    route: Route | None
    """None while it is not up: its share goes to the main version."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that gets copies of a share of the main version's requests."""

    percent: int
    route: Route


@dataclass(frozen=True, slots=True)
class Split:
    """The versions of a deployment that answer, and in which shares."""

    deployment: DeploymentName
    main: Route
    canaries: tuple[Canary, ...] = ()
    shadow: Shadow | None = None
    cache_bytes: int = 0
    """Of answers that are kept; 0 keeps none."""
    rollouts: tuple[Rollout, ...] = ()
    """Of the references that these versions answer for, the main one first."""

    def choose(self, payload: Payload, sticky_key: str) -> Route:
        """The version that answers a request; the same one for the same key while the split stands.

        A version that is not up, or whose graph takes tensors of another shape, leaves its share to the main one.
        """
        if not self.canaries:
            return self.main
        route = self._drawn(sticky_key).route
        if route is None or not route.endpoints or not route.takes(payload):
            return self.main
        return route

    def _drawn(self, sticky_key: str) -> Canary:
        if sticky_key:
            shares = [(canary.identity, canary.percent) for canary in self.canaries]
            position = place(str(self.deployment), sticky_key, shares)
            return Canary("", 100, self.main) if position is None else self.canaries[position]
        left = random.uniform(0, 100)  # noqa: S311 - who is a canary is no secret
        for canary in self.canaries:
            left -= canary.percent
            if left < 0:
                return canary
        return Canary("", 100, self.main)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Of every version that is up, the main one first."""
        shadows = (self.shadow.route,) if self.shadow else ()
        return self.main, *(canary.route for canary in self.canaries if canary.route is not None), *shadows

    @property
    def versions(self) -> frozenset[VersionName]:
        """Of all these routes."""
        return frozenset(route.version.name for route in self.routes)

    def find(self, wanted: Wanted) -> Route | None:
        """The version that a caller insists on; of equal numbers, that of the main version's model before others."""
        found = [route for route in self.routes if wanted in (route.version.name, route.version.name.number)]
        return min(found, key=lambda route: route.version.name.parent != self.main.version.name.parent, default=None)


class Router:
    """The split of every deployment. Belongs to one event loop, so that a switch is one assignment."""

    def __init__(self, caches: ResponseCaches) -> None:
        """Send nothing yet.

        Args:
            caches: told which versions' answers may still be given.
        """
        self._caches = caches
        self._splits: dict[DeploymentName, Split] = {}
        self._expected: frozenset[DeploymentName] | None = None
        """None until the deployments were looked up."""
        self._announced: frozenset[DeploymentName] = frozenset()

    def find(self, name: DeploymentName) -> Split:
        """What answers for a deployment.

        Raises:
            DeploymentNotFoundError: there is no such deployment.
            DeploymentNotReadyError: no version of it answers yet, or nobody knows yet whether there is one.
        """
        split = self._splits.get(name)
        if split is not None:
            return split
        if self._expected is None:
            raise DeploymentNotReadyError("the deployments are being looked up", retry_after_s=2.0)
        if name in self._expected | self._announced:
            raise DeploymentNotReadyError(f"no version of {name} answers yet", retry_after_s=2.0)
        raise DeploymentNotFoundError(name)

    def get(self, name: DeploymentName) -> Split | None:
        """What answers for a deployment, if anything does."""
        return self._splits.get(name)

    def switch(self, split: Split) -> None:
        """Send every later request of the deployment by this split."""
        self._splits[split.deployment] = split
        self._caches.keep(split.deployment, split.versions, split.cache_bytes)

    def remove(self, name: DeploymentName) -> None:
        """Send nothing more."""
        self._splits.pop(name, None)
        self._caches.forget(name)

    @property
    def announced(self) -> frozenset[DeploymentName]:
        """What was created, and not looked up since."""
        return self._announced

    def announce(self, name: DeploymentName) -> None:
        """Say that a deployment was created, before the next look."""
        self._announced |= {name}

    def expect(self, names: frozenset[DeploymentName], announced: frozenset[DeploymentName]) -> None:
        """Say which deployments exist, so that one that is not up is told from one that is missing.

        Args:
            names: as they were looked up.
            announced: what was announced before that look.
        """
        self._expected = names
        self._announced -= announced

    def names(self) -> set[DeploymentName]:
        """Every deployment that answers."""
        return set(self._splits)

    def versions(self) -> dict[DeploymentName, frozenset[VersionName]]:
        """The versions of every deployment that answers."""
        return {name: split.versions for name, split in self._splits.items()}
