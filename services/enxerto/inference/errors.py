"""What the inference service can refuse.

EnxertoError
├── NotFoundError
│   ├── DeploymentNotFoundError
│   ├── VersionNotFoundError
│   ├── SampleNotFoundError
│   └── RegionNotFoundError
├── AlreadyExistsError
│   ├── DeploymentExistsError
│   ├── RequestIdReusedError
│   └── RegionExistsError
├── FailedPreconditionError
│   ├── VersionNotServableError
│   ├── VersionStartError
│   ├── ModelTooLargeError
│   ├── GoldenMismatchError
│   ├── TaskMismatchError
│   ├── NoEmbeddingError
│   ├── DeploymentDeletingError
│   └── ModelManagedElsewhereError
├── AbortedError
│   └── DeploymentChangedError
├── InvalidArgumentError
│   └── ItemsRefusedError
├── ResourceExhaustedError
│   ├── QueueFullError
│   ├── NoRoomError
│   ├── RateLimitedError
│   └── TooManyRegionsError
├── PermissionDeniedError
│   └── SharedMemoryOffError
└── UnavailableError
    ├── RegistryUnavailableError
    ├── StorageUnavailableError
    ├── ReplicasUnavailableError
    ├── ServiceStoppingError
    └── DeploymentNotReadyError
"""

from collections.abc import Sequence

from enxerto.kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionViolation,
    ResourceExhaustedError,
    UnavailableError,
    Violation,
)
from enxerto.kernel.names import DeploymentName, ProjectName, SampleName, VersionName
from enxerto.vision.specs import Task


class DeploymentNotFoundError(NotFoundError):
    """No such deployment."""

    reason = "DEPLOYMENT_NOT_FOUND"

    def __init__(self, name: DeploymentName | str) -> None:
        super().__init__("Deployment", str(name))


class VersionNotFoundError(NotFoundError):
    """The registry, or the deployment, has no such version."""

    reason = "VERSION_NOT_FOUND"

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__("ModelVersion", name, message)


class SampleNotFoundError(NotFoundError):
    """No such image was kept, or it made room for others."""

    reason = "SAMPLE_NOT_FOUND"

    def __init__(self, name: SampleName) -> None:
        super().__init__("Sample", str(name))


class DeploymentExistsError(AlreadyExistsError):
    """The name is taken."""

    reason = "DEPLOYMENT_EXISTS"

    def __init__(self, name: DeploymentName) -> None:
        super().__init__("Deployment", str(name))


class RequestIdReusedError(AlreadyExistsError):
    """The request id was used by a call that said something else."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, name: DeploymentName) -> None:
        super().__init__("Deployment", str(name), "the request_id belongs to an earlier call with other content")


class VersionNotServableError(FailedPreconditionError):
    """The version may not be served."""

    reason = "VERSION_NOT_SERVABLE"

    def __init__(self, name: VersionName, description: str) -> None:
        super().__init__(f"{name} {description}", [PreconditionViolation("STATE", str(name), description)])


class VersionStartError(FailedPreconditionError):
    """The version's replicas do not come up."""

    reason = "VERSION_FAILED_TO_START"

    def __init__(self, name: VersionName, why: str) -> None:
        super().__init__(f"{name}: {why}", [PreconditionViolation("REPLICAS", str(name), why)])


class ModelTooLargeError(FailedPreconditionError):
    """The model takes more memory than shared replicas ever have for it."""

    reason = "MODEL_TOO_LARGE"

    def __init__(self, name: VersionName, why: str) -> None:
        super().__init__(f"{name}: {why}", [PreconditionViolation("MEMORY", str(name), why)])
        self.why = why


class GoldenMismatchError(FailedPreconditionError):
    """The version does not answer its golden inputs as it did when it was made."""

    reason = "GOLDEN_MISMATCH"

    def __init__(self, name: VersionName, agreement: float, least: float) -> None:
        text = f"gives {agreement:.4f} of the answers to its golden inputs that it was registered with, needs {least:g}"
        super().__init__(f"{name} {text}", [PreconditionViolation("GOLDEN", str(name), text)])


class TaskMismatchError(FailedPreconditionError):
    """A version does something else than the caller, or its deployment, asks for."""

    reason = "TASK_MISMATCH"

    def __init__(self, name: DeploymentName | VersionName, actual: Task, expected: Task) -> None:
        text = f"{name} serves a model for {actual}, not for {expected}"
        super().__init__(text, [PreconditionViolation("TASK", str(name), text)])


class NoEmbeddingError(FailedPreconditionError):
    """The deployment's version gives no embeddings."""

    reason = "NO_EMBEDDING"

    def __init__(self, name: VersionName) -> None:
        text = f"{name} was registered before graphs gave embeddings: train it again"
        super().__init__(text, [PreconditionViolation("OUTPUT", str(name), text)])


class DeploymentDeletingError(FailedPreconditionError):
    """The deployment is being removed and takes no change."""

    reason = "DEPLOYMENT_DELETING"

    def __init__(self, name: DeploymentName) -> None:
        text = "is being deleted"
        super().__init__(f"{name} {text}", [PreconditionViolation("STATE", str(name), text)])


class DeploymentChangedError(AbortedError):
    """The deployment changed since the caller read it."""

    def __init__(self, name: DeploymentName) -> None:
        super().__init__(f"{name} was changed since it was read; read it again", metadata={"resource": str(name)})


class ItemsRefusedError(InvalidArgumentError):
    """Some images of a request cannot be read; every one of them is named."""

    reason = "IMAGE_REFUSED"

    def __init__(self, violations: Sequence[Violation], reasons: Sequence[str]) -> None:
        super().__init__(violations)
        self.metadata["image_reasons"] = ",".join(sorted(set(reasons)))


class QueueFullError(ResourceExhaustedError):
    """More work waits than the deployment accepts."""

    reason = "QUEUE_FULL"

    def __init__(self, name: DeploymentName) -> None:
        super().__init__(f"the queue of {name} is full", subject=str(name), retry_after_s=0.5)


class NoRoomError(ResourceExhaustedError):
    """The shared replicas' memory is taken by models that answer, or others are being loaded before this one."""

    reason = "NO_ROOM_FOR_MODEL"

    def __init__(self, name: VersionName, why: str) -> None:
        super().__init__(f"{name}: {why}", subject=str(name), retry_after_s=1.0)
        self.why = why


class RateLimitedError(ResourceExhaustedError):
    """A project's callers send more images than it may."""

    reason = "RATE_LIMITED"

    def __init__(self, project: ProjectName, images_per_s: float, retry_after_s: float) -> None:
        text = f"{project} may send {images_per_s:g} images a second"
        super().__init__(text, subject=str(project), retry_after_s=retry_after_s)


class RegistryUnavailableError(UnavailableError):
    """The registry cannot be reached."""

    reason = "REGISTRY_UNAVAILABLE"


class StorageUnavailableError(UnavailableError):
    """The database cannot be reached."""

    reason = "STORAGE_UNAVAILABLE"


class ReplicasUnavailableError(UnavailableError):
    """No replica answered."""

    reason = "REPLICAS_UNAVAILABLE"


class ServiceStoppingError(UnavailableError):
    """This process is draining."""

    reason = "SERVICE_STOPPING"

    def __init__(self) -> None:
        super().__init__("the service is stopping; reconnect with the last cursor", retry_after_s=1.0)


class DeploymentNotReadyError(UnavailableError):
    """The deployment has no version that answers yet."""

    reason = "DEPLOYMENT_NOT_READY"


class RegionNotFoundError(NotFoundError):
    """No region of shared memory has this name."""

    reason = "REGION_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("SharedMemoryRegion", name)


class RegionExistsError(AlreadyExistsError):
    """A region of shared memory has this name already."""

    reason = "REGION_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__("SharedMemoryRegion", name)


class TooManyRegionsError(ResourceExhaustedError):
    """As many regions of shared memory are registered as may be."""

    reason = "TOO_MANY_REGIONS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} regions are registered; unregister one first", subject="shared memory")


class SharedMemoryOffError(PermissionDeniedError):
    """This caller may not use the server's shared memory."""

    reason = "SHARED_MEMORY_OFF"


class ModelManagedElsewhereError(FailedPreconditionError):
    """A model is a deployment, and deployments have a service of their own."""

    reason = "MODEL_MANAGED_ELSEWHERE"

    def __init__(self, name: DeploymentName, description: str) -> None:
        super().__init__(description, [PreconditionViolation("DEPLOYMENT", str(name), description)])
