"""What the registry can refuse, each with a stable reason.

NotFoundError            ModelNotFoundError, VersionNotFoundError, AliasNotFoundError, BlobNotFoundError
AlreadyExistsError       ModelExistsError, RequestIdReusedError
FailedPreconditionError  BlobsMissingError, VersionNotReadyError, OutputsOfAnotherTaskError
AbortedError             ModelChangedError
ResourceExhaustedError   StorageFullError
UnavailableError         StorageUnavailableError
DataLossError            BlobCorruptError
"""

from collections.abc import Mapping

from enxerto.kernel.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    NotFoundError,
    PreconditionViolation,
    ResourceExhaustedError,
    UnavailableError,
)
from enxerto.kernel.names import ModelName, ProjectName, VersionName


class ModelNotFoundError(NotFoundError):
    """The project has no such model."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: ModelName) -> None:
        super().__init__("Model", str(name))


class VersionNotFoundError(NotFoundError):
    """The model has no such version."""

    reason = "VERSION_NOT_FOUND"

    def __init__(self, name: VersionName) -> None:
        super().__init__("ModelVersion", str(name))


class AliasNotFoundError(NotFoundError):
    """The model has no such alias."""

    reason = "ALIAS_NOT_FOUND"

    def __init__(self, model: ModelName, alias: str) -> None:
        super().__init__("Alias", f"{model}/versions/{alias}", f"Model {str(model)!r} has no alias {alias!r}")


class BlobNotFoundError(NotFoundError):
    """The project has no blob of this digest."""

    reason = "BLOB_NOT_FOUND"

    def __init__(self, parent: ProjectName, sha256: str) -> None:
        super().__init__("Blob", f"{parent}/blobs/{sha256}")


class ModelExistsError(AlreadyExistsError):
    """The project has a model of this id."""

    reason = "MODEL_EXISTS"

    def __init__(self, name: ModelName) -> None:
        super().__init__("Model", str(name))


class RequestIdReusedError(AlreadyExistsError):
    """The request id belongs to an earlier request with other content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        message = f"request_id {request_id!r} was used before for a request with other content"
        super().__init__("Request", request_id, message)


class BlobsMissingError(FailedPreconditionError):
    """Artifacts name blobs that are not in the registry."""

    reason = "BLOBS_MISSING"

    def __init__(self, parent: ProjectName, missing: Mapping[str, str]) -> None:
        """Gather everything that is missing.

        Args:
            parent: the project.
            missing: file name to digest.
        """
        violations = [
            PreconditionViolation("BLOB", f"{parent}/blobs/{sha256}", f"upload the bytes of {filename!r} first")
            for filename, sha256 in missing.items()
        ]
        super().__init__(f"{len(missing)} of the version's blobs are not in the registry", violations)


class VersionNotReadyError(FailedPreconditionError):
    """An alias may point to READY versions only."""

    reason = "VERSION_NOT_READY"

    def __init__(self, name: VersionName, state: str) -> None:
        violation = PreconditionViolation("STATE", str(name), f"must be READY, is {state}")
        super().__init__(f"version {str(name)!r} is {state}; an alias points to READY versions only", [violation])


class OutputsOfAnotherTaskError(FailedPreconditionError):
    """The version's graph does not give what graphs of the model's task give."""

    reason = "OUTPUTS_OF_ANOTHER_TASK"

    def __init__(self, name: ModelName, task: str, wanted: str, found: str) -> None:
        description = f"the model is for {task}, whose graphs have the outputs {wanted}; this one has {found}"
        super().__init__(f"{name}: {description}", [PreconditionViolation("TASK", str(name), description)])


class ModelChangedError(AbortedError):
    """The model changed since the caller read it."""

    def __init__(self, name: ModelName) -> None:
        super().__init__(f"model {str(name)!r} changed since its etag was read; read it again")


class StorageFullError(ResourceExhaustedError):
    """There is no room for more bytes."""

    reason = "STORAGE_FULL"

    def __init__(self, message: str) -> None:
        super().__init__(message, subject="storage", retry_after_s=60.0)


class StorageUnavailableError(UnavailableError):
    """The database or the object store cannot be reached."""

    reason = "STORAGE_UNAVAILABLE"


class BlobCorruptError(DataLossError):
    """Stored bytes are gone, or are not what was stored."""

    reason = "BLOB_CORRUPT"

    def __init__(self, sha256: str, problem: str) -> None:
        super().__init__(f"blob {sha256}: {problem}; upload it again to repair it")
