"""What the references of deployments mean now, as the registry says."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence, Set

from enxerto.inference.domain import Deployment, Fault, FaultKind, Rollout, ServableVersion
from enxerto.inference.errors import TaskMismatchError, VersionNotFoundError, VersionNotServableError
from enxerto.inference.ports import DeploymentStore, ModelRegistry
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, FailedPreconditionError, NotFoundError, UnavailableError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from enxerto.vision.onnx.golden import Golden

logger = logging.getLogger(__name__)


class References:
    """Follows aliases, and keeps the facts of the versions that they led to."""

    def __init__(self, registry: ModelRegistry, store: DeploymentStore, clock: Clock) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._facts: dict[VersionName, ServableVersion] = {}
        self._kept: dict[DeploymentName, frozenset[VersionName]] = {}
        """The versions whose facts this process has kept, or found kept."""

    async def facts(self, version: VersionName) -> ServableVersion:
        """What is known of a version.

        Raises:
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: see `ModelRegistry.resolve`.
        """
        if version not in self._facts:
            self._facts[version] = await self._registry.resolve(_by_number(version))
        return self._facts[version]

    async def recall(self, deployment: DeploymentName, version: VersionName) -> ServableVersion:
        """What is known of a version that serves: what was kept of it, where the registry does not tell.

        Raises:
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: as `facts`, if nothing was kept.
            StorageUnavailableError: the database cannot be reached either.
        """
        try:
            return await self.facts(version)
        except (UnavailableError, NotFoundError, FailedPreconditionError) as error:
            kept = await self._store.facts(deployment, version)
            if kept is None:
                raise
            logger.warning("facts are recalled", extra={"version": str(version), "error": error.message})
            return kept

    async def keep(self, serving: Mapping[DeploymentName, Collection[ServableVersion]]) -> None:
        """Keep what is known of the versions that serve, so that a restart needs no registry to go on with them."""
        self._kept = {name: versions for name, versions in self._kept.items() if name in serving}
        for deployment, versions in serving.items():
            names = frozenset(version.name for version in versions)
            if names and self._kept.get(deployment) != names:
                await self._store.keep_facts(deployment, versions)
                self._kept[deployment] = names

    async def golden(self, version: ServableVersion) -> Golden | None:
        """The inputs that a version came with; see `ModelRegistry.golden`."""
        return await self._registry.golden(version)

    async def follow(self, deployments: Sequence[Deployment]) -> list[Deployment]:
        """Find out what every reference of these deployments means now; the registry is asked once for all of them."""
        references = {rollout.reference for deployment in deployments for rollout in deployment.rollouts}
        targets = {reference: version for reference in references if (version := self._numbered(reference))}
        led = targets | await self._ask(references - targets.keys())
        followed = [self._advance(deployment, led) for deployment in deployments]
        meant = {version for one in followed for each in one.rollouts for version in (each.serving, each.target)}
        self._facts = {version: facts for version, facts in self._facts.items() if version in meant}
        return followed

    def _numbered(self, reference: VersionReference) -> VersionName | None:
        """The known version that a number means, which never changes."""
        number = reference.number
        version = VersionName(reference.project, reference.model, number) if number else None
        return version if version in self._facts else None

    async def _ask(self, references: Set[VersionReference]) -> dict[VersionReference, VersionName | Fault]:
        """Where references lead now, or why nowhere; those that nobody can tell of at the moment are left out."""
        if not references:
            return {}
        try:
            meanings = await self._registry.meanings(references)
        except UnavailableError as error:
            logger.warning("registry is away", extra={"references": len(references), "error": error.message})
            return {}
        strange = {one.version for one in meanings.values() if not one.ready or one.version not in self._facts}
        learned = dict(zip(strange, await asyncio.gather(*map(self._learn, strange)), strict=True))
        found: dict[VersionReference, VersionName | Fault] = {}
        for reference in references:
            if (meaning := meanings.get(reference)) is None:
                found[reference] = fault_of(VersionNotFoundError(str(reference)))
            elif (led := learned.get(meaning.version, meaning.version)) is not None:
                found[reference] = led
        return found

    async def _learn(self, version: VersionName) -> VersionName | Fault | None:
        """Read the facts of a version; returns it, or why it may not be served, or None when nobody can tell."""
        try:
            self._facts[version] = await self._registry.resolve(_by_number(version))
        except UnavailableError as error:
            logger.warning("registry is away", extra={"version": str(version), "error": error.message})
            return None
        except (NotFoundError, FailedPreconditionError) as error:
            return fault_of(error)
        except Exception as error:
            logger.exception("a version cannot be read", extra={"version": str(version)})
            return fault_of(VersionNotServableError(version, f"cannot be read: {type(error).__name__}"))
        return version

    def _advance(self, deployment: Deployment, led: Mapping[VersionReference, VersionName | Fault]) -> Deployment:
        now = self._clock.now()
        for rollout in deployment.rollouts:
            target = led.get(rollout.reference)
            if isinstance(target, Fault):
                deployment = deployment.advance(rollout.lose(target), now)
            elif target is not None and target != rollout.target:
                logger.info("new target", extra={"deployment": str(deployment.name), "version": str(target)})
                deployment = deployment.advance(rollout.aim(target), now)
        for companion in deployment.companions:
            deployment = deployment.advance(self._of_one_task(deployment, companion), now)
        return deployment

    def _of_one_task(self, deployment: Deployment, companion: Rollout) -> Rollout:
        """A version beside the main one answers the same calls, so it does the same; also as one that is on its way."""
        main = deployment.main
        beside = main.target if main.attempting or main.serving is None else main.serving
        mismatched = companion.fault is not None and companion.fault.reason == TaskMismatchError.reason
        if beside is None or companion.target is None or (companion.fault is not None and not mismatched):
            return companion
        ours, theirs = self._facts.get(beside), self._facts.get(companion.target)
        if ours is None or theirs is None or mismatched is (ours.task is not theirs.task):
            return companion
        if mismatched:
            return companion.retry(companion.reference)
        return companion.fail(fault_of(TaskMismatchError(theirs.name, theirs.task, ours.task)))


def _by_number(version: VersionName) -> VersionReference:
    return VersionReference(version.project, version.model, str(version.number))


def fault_of(error: EnxertoError) -> Fault:
    """An error as a deployment shows it."""
    kind = FaultKind.NOT_FOUND if isinstance(error, NotFoundError) else FaultKind.FAILED_PRECONDITION
    return Fault(kind, error.reason, error.message)
