"""What the references of deployments mean now, as the registry says."""

import asyncio
import logging

from enxerto.inference.domain import Deployment, Fault, FaultKind, Rollout, ServableVersion
from enxerto.inference.errors import TaskMismatchError
from enxerto.inference.ports import ModelRegistry
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError, FailedPreconditionError, NotFoundError, UnavailableError
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.vision.onnx.golden import Golden

logger = logging.getLogger(__name__)


class References:
    """Follows aliases, and keeps the facts of the versions that they led to."""

    def __init__(self, registry: ModelRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._facts: dict[VersionName, ServableVersion] = {}

    async def facts(self, version: VersionName) -> ServableVersion:
        """What is known of a version.

        Raises:
            VersionNotFoundError, VersionNotServableError, RegistryUnavailableError: see `ModelRegistry.resolve`.
        """
        if version not in self._facts:
            reference = VersionReference(version.project, version.model, str(version.number))
            self._facts[version] = await self._registry.resolve(reference)
        return self._facts[version]

    async def golden(self, version: ServableVersion) -> Golden | None:
        """The inputs that a version came with; see `ModelRegistry.golden`."""
        return await self._registry.golden(version)

    async def follow(self, deployment: Deployment) -> Deployment:
        """Find out what every reference of a deployment means now."""
        rollouts = await asyncio.gather(*(self._follow(deployment, rollout) for rollout in deployment.rollouts))
        now = self._clock.now()
        for rollout in rollouts:
            deployment = deployment.advance(rollout, now)
        for companion in deployment.companions:
            deployment = deployment.advance(self._of_one_task(deployment, companion), now)
        return deployment

    async def _follow(self, deployment: Deployment, rollout: Rollout) -> Rollout:
        reference = rollout.reference
        number = reference.number
        known = VersionName(reference.project, reference.model, number) if number else None
        if known is not None and known in self._facts:
            return rollout.aim(known)
        try:
            version = await self._registry.resolve(reference)
        except UnavailableError as error:
            logger.warning("registry is away", extra={"deployment": str(deployment.name), "error": error.message})
            return rollout
        except (NotFoundError, FailedPreconditionError) as error:
            return rollout.lose(fault_of(error))
        self._facts[version.name] = version
        aimed = rollout.aim(version.name)
        if aimed is not rollout:
            logger.info("new target", extra={"deployment": str(deployment.name), "version": str(version.name)})
        return aimed

    def _of_one_task(self, deployment: Deployment, companion: Rollout) -> Rollout:
        """A version beside the main one answers the same calls, so it does the same."""
        main = deployment.main.serving or deployment.main.target
        if main is None or companion.target is None or companion.fault is not None:
            return companion
        ours, theirs = self._facts.get(main), self._facts.get(companion.target)
        if ours is None or theirs is None or ours.task is theirs.task:
            return companion
        return companion.fail(fault_of(TaskMismatchError(theirs.name, theirs.task, ours.task)))


def fault_of(error: EnxertoError) -> Fault:
    """An error as a deployment shows it."""
    kind = FaultKind.NOT_FOUND if isinstance(error, NotFoundError) else FaultKind.FAILED_PRECONDITION
    return Fault(kind, error.reason, error.message)
