"""Use cases of deployments: what users ask for. The reconciler makes it so."""

import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from enxerto.inference.domain import (
    MAX_TRAFFIC_PERCENT,
    Autoscaling,
    Batching,
    Deployment,
    DeploymentSpec,
    Device,
    ServableVersion,
    ShadowShare,
    State,
    TrafficShare,
    find_alias,
)
from enxerto.inference.errors import DeploymentChangedError, DeploymentDeletingError, TaskMismatchError
from enxerto.inference.ports import ModelRegistry
from enxerto.inference.service.routing import Router
from enxerto.inference.service.watching import WatchedStore
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest

_WRITE_ATTEMPTS = 10


class Kept(enum.Enum):
    """What a field of an update is when it stays as it is."""

    KEPT = enum.auto()


KEPT = Kept.KEPT


@dataclasses.dataclass(frozen=True, slots=True)
class SpecChange:
    """What an update changes."""

    model_version: VersionReference | Kept = KEPT
    replicas: int | Kept = KEPT
    labels: Mapping[str, str] | Kept = KEPT
    traffic: tuple[TrafficShare, ...] | Kept = KEPT
    autoscaling: Autoscaling | Kept | None = KEPT
    batching: Batching | Kept = KEPT
    warm_up_batch_sizes: tuple[int, ...] | Kept = KEPT
    shadow: ShadowShare | Kept | None = KEPT
    pinned: bool | Kept = KEPT
    default_priority: int | Kept = KEPT
    response_cache: int | Kept = KEPT

    def apply(self, spec: DeploymentSpec) -> DeploymentSpec:
        """The spec with what changes.

        Raises:
            InvalidArgumentError: names what does not go together.
        """
        changes: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = dataclasses.replace(spec, **{name: value for name, value in changes.items() if value is not KEPT})
        check(changed)
        return changed


def check(spec: DeploymentSpec) -> None:
    """Refuse a spec whose parts do not go together.

    Raises:
        InvalidArgumentError: names every part.
    """
    violations = Violations()
    seen = {spec.model_version}
    for position, share in enumerate(spec.traffic):
        if share.model_version in seen:
            violations.add(f"deployment.traffic[{position}].model_version", "names a version that is named before")
        seen.add(share.model_version)
    if spec.shadow is not None and spec.shadow.model_version in seen:
        violations.add("deployment.shadow.model_version", "names a version that is named before")
    if sum(share.percent for share in spec.traffic) > MAX_TRAFFIC_PERCENT:
        violations.add("deployment.traffic", f"must leave a share to the main version: at most {MAX_TRAFFIC_PERCENT}")
    if spec.shared and spec.autoscaling is not None:
        violations.add(
            "deployment.autoscaling", "is for dedicated replicas: shared ones are as many as the service has"
        )
    if spec.shared and spec.device is not Device.CPU:
        violations.add("deployment.device", "shared replicas are on the CPU")
    if spec.pinned and not spec.shared:
        violations.add("deployment.pinned", "is for shared replicas: dedicated ones hold one model")
    violations.raise_if_any()


class Deployments:
    """Creates, reads, changes and removes deployments."""

    def __init__(
        self, store: WatchedStore, registry: ModelRegistry, clock: Clock, router: Router, on_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._router = router
        self._registry = registry
        self._clock = clock
        self._on_change = on_change

    async def create(self, name: DeploymentName, spec: DeploymentSpec, request_id: str) -> Deployment:
        """Accept a deployment of a version that exists and may be served.

        Raises:
            InvalidArgumentError: parts of the spec do not go together.
            VersionNotFoundError, VersionNotServableError: a version is missing or may not be served.
            TaskMismatchError: a version beside the main one is for another task.
            RegistryUnavailableError: whether it exists cannot be known now.
            DeploymentExistsError, RequestIdReusedError: see `DeploymentStore.create`.
        """
        check(spec)
        version = await self._registry.resolve(spec.model_version)
        await self._resolve_companions(spec, version)
        deployment = Deployment.create(name, spec, version.name, self._clock.now())
        created = await self._store.create(deployment, request_id)
        self._router.announce(created.name)
        self._on_change()
        return created

    async def get(self, name: DeploymentName) -> Deployment:
        """Read one, or raise `DeploymentNotFoundError`."""
        return await self._store.get(name)

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """Deployments of a project by id."""
        return await self._store.list(parent, page)

    def watch(self, name: DeploymentName, after_cursor: int) -> AsyncIterator[tuple[Deployment, int]]:
        """A deployment as it is and after each change, each with its cursor; see `WatchedStore.watch`."""
        return self._store.watch(name, after_cursor)

    async def all(self) -> Sequence[Deployment]:
        """Every deployment of every project, by name."""
        return sorted(await self._store.all(), key=lambda deployment: deployment.name)

    async def version_of(self, name: DeploymentName, alias: str) -> VersionName | None:
        """The version that an alias means for a deployment.

        None for the alias that it follows: whatever serves now. That of a canary or a shadow means the version that
        answers for it, while another is on the way. What answers is known without asking; the database knows what was
        asked for a moment ago, and the registry any other alias of the model.

        Raises:
            DeploymentNotFoundError: there is no such deployment.
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: see `ModelRegistry.resolve`.
        """
        split = self._router.get(name)
        rollouts = split.rollouts if split is not None else ()
        found = find_alias(rollouts, alias)
        if found is None:
            rollouts = (await self._store.get(name)).rollouts
            found = find_alias(rollouts, alias)
        main = rollouts[0]
        if found is main:
            return None
        if found is not None and found.serving is not None:
            return found.serving
        return (await self._registry.resolve(dataclasses.replace(main.reference, version=alias))).name

    async def update(self, name: DeploymentName, change: SpecChange, etag: str) -> Deployment:
        """Change what a user decides. What serves goes on serving until the new version answers.

        Raises:
            DeploymentNotFoundError: there is none.
            DeploymentChangedError: `etag` is given and is not the current one.
            DeploymentDeletingError: it is being removed.
            InvalidArgumentError, VersionNotFoundError, VersionNotServableError, TaskMismatchError,
                RegistryUnavailableError: as for `create`.
        """
        current = await self._store.get(name)
        spec, target = change.apply(current.spec), None
        if change.model_version is not KEPT or spec.companions != current.spec.companions:
            main = await self._registry.resolve(spec.model_version)
            await self._resolve_companions(spec, main)
            target = main.name if change.model_version is not KEPT else None

        def apply(deployment: Deployment) -> Deployment:
            if deployment.state is State.DELETING:
                raise DeploymentDeletingError(name)
            now = self._clock.now()
            updated = deployment.update(change.apply(deployment.spec), now)
            return updated.advance(updated.main.aim(target), now) if target else updated

        return await self._change(name, etag, apply)

    async def delete(self, name: DeploymentName, etag: str) -> None:
        """Answer no more requests of the deployment, and remove it once the running ones have ended."""
        await self._change(name, etag, lambda deployment: deployment.delete(self._clock.now()))

    async def _resolve_companions(self, spec: DeploymentSpec, main: ServableVersion) -> None:
        found = await asyncio.gather(*(self._registry.resolve(reference) for reference in spec.companions))
        for version in found:
            if version.task is not main.task:
                raise TaskMismatchError(version.name, version.task, main.task)

    async def _change(self, name: DeploymentName, etag: str, apply: Callable[[Deployment], Deployment]) -> Deployment:
        for attempt in range(_WRITE_ATTEMPTS):
            current = await self._store.get(name)
            if etag and etag != current.etag:
                raise DeploymentChangedError(name)
            if (wanted := apply(current)) == current:
                return current
            try:
                changed = await self._store.replace(wanted)
            except DeploymentChangedError:
                # Progress of a roll-out was written in between; it does not concern what the user decides.
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise
                continue
            self._on_change()
            return changed
        raise DeploymentChangedError(name)
