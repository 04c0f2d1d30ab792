"""What the inference service can refuse.

EnxertoError
├── NotFoundError
│   ├── DeploymentNotFoundError
│   ├── VersionNotFoundError
│   └── SampleNotFoundError
├── AlreadyExistsError
│   ├── DeploymentExistsError
│   └── RequestIdReusedError
├── FailedPreconditionError
│   ├── VersionNotServableError
│   ├── TaskMismatchError
│   └── NoEmbeddingError
├── AbortedError
│   └── DeploymentChangedError
├── InvalidArgumentError
│   └── ItemsRefusedError
├── ResourceExhaustedError
│   └── QueueFullError
└── UnavailableError
    ├── RegistryUnavailableError
    ├── StorageUnavailableError
    ├── ReplicasUnavailableError
    └── DeploymentNotReadyError
"""

from collections.abc import Sequence

from enxerto.kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionViolation,
    ResourceExhaustedError,
    UnavailableError,
    Violation,
)
from enxerto.kernel.names import DeploymentName, SampleName, VersionName
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


class TaskMismatchError(FailedPreconditionError):
    """The deployment's version does something else than the caller asked for."""

    reason = "TASK_MISMATCH"

    def __init__(self, name: DeploymentName, actual: Task, expected: Task) -> None:
        text = f"{name} serves a model for {actual}, not for {expected}"
        super().__init__(text, [PreconditionViolation("TASK", str(name), text)])


class NoEmbeddingError(FailedPreconditionError):
    """The deployment's version gives no embeddings."""

    reason = "NO_EMBEDDING"

    def __init__(self, name: VersionName) -> None:
        text = f"{name} was registered before graphs gave embeddings: train it again"
        super().__init__(text, [PreconditionViolation("OUTPUT", str(name), text)])


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


class RegistryUnavailableError(UnavailableError):
    """The registry cannot be reached."""

    reason = "REGISTRY_UNAVAILABLE"


class StorageUnavailableError(UnavailableError):
    """The database cannot be reached."""

    reason = "STORAGE_UNAVAILABLE"


class ReplicasUnavailableError(UnavailableError):
    """No replica answered."""

    reason = "REPLICAS_UNAVAILABLE"


class DeploymentNotReadyError(UnavailableError):
    """The deployment has no version that answers yet."""

    reason = "DEPLOYMENT_NOT_READY"
