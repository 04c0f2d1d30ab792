"""What can go wrong, in the words of the domain. The gRPC codes are decided in one table, in `runtime`.

    EnxertoError
    ├── InvalidArgumentError        every bad field of a request, gathered
    ├── NotFoundError               a resource that is not there
    ├── AlreadyExistsError          a resource that is already there
    ├── FailedPreconditionError     a wrong state, a gate that is not met
    ├── AbortedError                a lost update
    ├── ResourceExhaustedError      a quota, a full queue
    ├── UnavailableError            a dependency is away
    ├── UnauthenticatedError        no or bad credentials
    ├── PermissionDeniedError       no right
    ├── UnimplementedError          something that this server never does
    └── DataLossError               stored bytes are not what was stored

Each class carries a stable `reason` (upper snake case) that clients may branch on; services subclass these with reasons
of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request."""

    field: str
    """Path of the field in the request, such as `training_run.spec.learning_rate`."""
    description: str
    """What must hold, for people."""


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """One condition that the system's state does not meet."""

    type: str
    """Stable kind in upper snake case, such as `STATE`."""
    subject: str
    """The resource that it is about."""
    description: str
    """What must hold, for people."""


class EnxertoError(Exception):
    """Anything that a caller can be told."""

    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidArgumentError(EnxertoError):
    """One or more fields of a request are bad."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}")
        self.violations = tuple(violations)


class NotFoundError(EnxertoError):
    """A resource is not there."""

    reason = "NOT_FOUND"

    def __init__(self, resource_type: str, resource_name: str, message: str | None = None) -> None:
        super().__init__(message or f"{resource_type} {resource_name!r} was not found")
        self.resource_type = resource_type
        self.resource_name = resource_name


class AlreadyExistsError(EnxertoError):
    """A resource is already there."""

    reason = "ALREADY_EXISTS"

    def __init__(self, resource_type: str, resource_name: str, message: str | None = None) -> None:
        super().__init__(message or f"{resource_type} {resource_name!r} already exists")
        self.resource_type = resource_type
        self.resource_name = resource_name


class FailedPreconditionError(EnxertoError):
    """The system is not in the state that the request needs."""

    reason = "FAILED_PRECONDITION"

    def __init__(self, message: str, violations: Sequence[PreconditionViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class AbortedError(EnxertoError):
    """The resource changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class ResourceExhaustedError(EnxertoError):
    """A quota or a queue is full."""

    reason = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, *, subject: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.subject = subject
        self.retry_after_s = retry_after_s


class UnavailableError(EnxertoError):
    """A dependency is away; the same call may succeed later."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnauthenticatedError(EnxertoError):
    """No credentials, or bad ones."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(EnxertoError):
    """The caller, or the configuration, does not allow it."""

    reason = "PERMISSION_DENIED"


class UnimplementedError(EnxertoError):
    """What was asked for is never done here."""

    reason = "UNIMPLEMENTED"


class DataLossError(EnxertoError):
    """Stored bytes are missing or not what was stored."""

    reason = "DATA_LOSS"


class Violations:
    """Gathers bad fields, so that a caller hears of all of them at once."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note a bad field."""
        self._violations.append(Violation(field, description))

    def __bool__(self) -> bool:
        return bool(self._violations)

    def __len__(self) -> int:
        return len(self._violations)

    def raise_if_any(self) -> None:
        """Raise `InvalidArgumentError` with everything noted, if anything was."""
        if self._violations:
            raise InvalidArgumentError(self._violations)
