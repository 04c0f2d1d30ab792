"""Use cases of deployments: what users ask for. The reconciler makes it so."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from enxerto.inference.domain import Deployment, DeploymentSpec, State
from enxerto.inference.errors import DeploymentChangedError
from enxerto.inference.ports import DeploymentStore, ModelRegistry
from enxerto.kernel.clock import Clock
from enxerto.kernel.names import DeploymentName, ProjectName, VersionReference
from enxerto.kernel.paging import Page, PageRequest

_WRITE_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class SpecChange:
    """What an update changes; None leaves a field as it is."""

    model_version: VersionReference | None = None
    replicas: int | None = None
    labels: Mapping[str, str] | None = None


class Deployments:
    """Creates, reads, changes and removes deployments."""

    def __init__(
        self, store: DeploymentStore, registry: ModelRegistry, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._on_change = on_change

    async def create(self, name: DeploymentName, spec: DeploymentSpec, request_id: str) -> Deployment:
        """Accept a deployment of a version that exists and may be served.

        Raises:
            VersionNotFoundError, VersionNotServableError: the version is missing or may not be served.
            RegistryUnavailableError: whether it exists cannot be known now.
            DeploymentExistsError, RequestIdReusedError: see `DeploymentStore.create`.
        """
        version = await self._registry.resolve(spec.model_version)
        deployment = Deployment.create(name, spec, version.name, self._clock.now())
        created = await self._store.create(deployment, request_id)
        self._on_change()
        return created

    async def get(self, name: DeploymentName) -> Deployment:
        """Read one, or raise `DeploymentNotFoundError`."""
        return await self._store.get(name)

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """Deployments of a project by id."""
        return await self._store.list(parent, page)

    async def all(self) -> Sequence[Deployment]:
        """Every deployment of every project, by name."""
        return sorted(await self._store.all(), key=lambda deployment: deployment.name)

    async def number_of(self, name: DeploymentName, alias: str) -> int | None:
        """The version that an alias means for a deployment; None for the alias that it follows: whatever serves now.

        Raises:
            DeploymentNotFoundError: there is no such deployment.
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: see `ModelRegistry.resolve`.
        """
        followed = (await self._store.get(name)).spec.model_version
        if alias == followed.version:
            return None
        meant = await self._registry.resolve(VersionReference(followed.project, followed.model, alias))
        return meant.name.number

    async def update(self, name: DeploymentName, change: SpecChange, etag: str) -> Deployment:
        """Change what a user decides. What serves goes on serving until the new version answers.

        Raises:
            DeploymentNotFoundError: there is none.
            DeploymentChangedError: `etag` is given and is not the current one.
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: as for `create`.
        """
        target = None
        if change.model_version is not None:
            target = (await self._registry.resolve(change.model_version)).name

        def apply(deployment: Deployment) -> Deployment:
            old = deployment.spec
            spec = DeploymentSpec(
                change.model_version or old.model_version,
                old.replicas if change.replicas is None else change.replicas,
                old.labels if change.labels is None else change.labels,
            )
            updated = deployment.update(spec, self._clock.now())
            return updated.aim(target, self._clock.now()) if target else updated

        return await self._change(name, etag, apply)

    async def delete(self, name: DeploymentName, etag: str) -> None:
        """Answer no more requests of the deployment, and remove it once the running ones have ended."""
        await self._change(name, etag, lambda deployment: deployment.delete(self._clock.now()))

    async def _change(self, name: DeploymentName, etag: str, apply: Callable[[Deployment], Deployment]) -> Deployment:
        for attempt in range(_WRITE_ATTEMPTS):
            current = await self._store.get(name)
            if etag and etag != current.etag:
                raise DeploymentChangedError(name)
            if current.state is State.DELETING:
                return current
            try:
                changed = await self._store.replace(apply(current))
            except DeploymentChangedError:
                # Progress of a roll-out was written in between; it does not concern what the user decides.
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise
                continue
            self._on_change()
            return changed
        raise DeploymentChangedError(name)
