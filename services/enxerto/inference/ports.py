"""What the inference service needs from the world."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from enxerto.inference.domain import (
    Application,
    ApplicationStatus,
    BatchAnswer,
    Deployment,
    Endpoint,
    Payload,
    PayloadKind,
    ServableVersion,
    State,
)
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest
from enxerto.vision.onnx.golden import Golden
from enxerto.vision.specs import Task


class DeploymentStore(Protocol):
    """Keeps deployments. Every method is one transaction."""

    async def create(self, deployment: Deployment, request_id: str) -> Deployment:
        """Keep a new deployment, or return what an earlier call with the same request id made.

        Raises:
            DeploymentExistsError: there is one of this name.
            RequestIdReusedError: the earlier call said something else.
        """
        ...

    async def get(self, name: DeploymentName) -> Deployment:
        """Read one, or raise `DeploymentNotFoundError`."""
        ...

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """Deployments of a project by id, in byte order."""
        ...

    async def all(self) -> Sequence[Deployment]:
        """Every deployment of every project."""
        ...

    async def replace(self, deployment: Deployment) -> Deployment:
        """Write over the same revision; return it with the next one.

        Raises:
            DeploymentNotFoundError: it is gone.
            DeploymentChangedError: someone else wrote in between.
        """
        ...

    async def remove(self, name: DeploymentName) -> None:
        """Forget one; one that is gone already is no error."""
        ...


class ModelRegistry(Protocol):
    """Where versions come from."""

    async def resolve(self, reference: VersionReference) -> ServableVersion:
        """The version that a number or an alias means now.

        Raises:
            VersionNotFoundError: there is none.
            VersionNotServableError: it is quarantined, or not something that this service can serve.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...

    async def golden(self, version: ServableVersion) -> Golden | None:
        """The inputs that a version came with and what it answered, if it came with any.

        Raises:
            VersionNotServableError: they cannot be read.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...


class ReplicaCluster(Protocol):
    """What places, heals and scales the replicas."""

    async def apply(self, applications: Sequence[Application]) -> None:
        """Make these, and only these, the applications that run. Returns before they do.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        ...

    async def observe(self) -> Mapping[str, ApplicationStatus]:
        """Every application by name.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        ...


class Replicas(Protocol):
    """Calls to replicas."""

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        """Run one batch, made of payloads of one kind, on one replica.

        Raises:
            ReplicasUnavailableError: the replica is gone, belongs to someone else, or did not answer in time.
            QueueFullError: the replica has too much to do.
        """
        ...

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        """Close the connections to all others."""
        ...


class Meter(Protocol):
    """Counts what the service does. Label values are bounded; no resource name is one."""

    def batch_answered(self, kind: PayloadKind, items: int, answer: BatchAnswer, round_trip_s: float) -> None:
        """A replica answered a batch."""
        ...

    def waited(self, seconds: float) -> None:
        """A request left the queue after so many seconds."""
        ...

    def dropped(self, reason: str) -> None:
        """A request was given up: `expired`, `queue_full`, `unavailable`."""
        ...

    def images_answered(self, kind: PayloadKind, count: int) -> None:
        """So many images have an answer."""
        ...

    def images_refused(self, count: int) -> None:
        """So many images could not be read."""
        ...

    def replica_failed(self) -> None:
        """A call to a replica failed."""
        ...

    def version_switched(self) -> None:
        """A deployment's traffic moved to another version."""
        ...

    def version_failed(self) -> None:
        """A target version could not be brought up."""
        ...

    def shadow_compared(self, task: Task, images: int, agreed: float) -> None:
        """A shadow's answers to so many images were compared; `agreed` is the sum of their agreements in [0, 1]."""
        ...

    def shadow_dropped(self, reason: str) -> None:
        """A copy for a shadow was given up: `queue_full`, `failed`."""
        ...

    def deployments(self, counts: Mapping[State, int]) -> None:
        """How many deployments there are in each state."""
        ...

    def queued(self, items: int) -> None:
        """How many images wait now, more or fewer: a difference."""
        ...
