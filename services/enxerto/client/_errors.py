"""What a call can raise. Every gRPC status becomes one of these through one table.

EnxertoError
├── InvalidArgumentError        bad fields; `violations` names them all
├── NotFoundError               a resource that is not there
├── AlreadyExistsError          a resource that is already there
├── FailedPreconditionError     a wrong state, a gate that is not met; `violations` says which
│   ├── ImportFailedError       a snapshot ended FAILED; `findings` lists its files
│   ├── TrainingFailedError     a run ended FAILED
│   └── DeploymentFailedError   a deployment ended FAILED
├── AbortedError                a lost update
├── ResourceExhaustedError      a quota, a full queue, a message over the limit; see `retry_delay_s`
├── UnavailableError            a service cannot be reached; see `retry_delay_s`
│   └── PlatformNotRunningError no local platform runs under ENXERTO_HOME
├── DeadlineExceededError       no answer in time
├── UnauthenticatedError        no or bad credentials
├── PermissionDeniedError       no right
├── DataLossError               stored bytes are not what was stored
│   └── ChecksumError           downloaded bytes do not have the sha256 that was promised
├── CancelledError              the call was cancelled
└── InternalError               anything else; the service's log has it under `request_id`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from enxerto.client._results import Finding

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason why a request was refused."""

    field: str
    """The field, or for a precondition the resource that it is about."""
    description: str
    """What must hold, for people."""


class EnxertoError(Exception):
    """Anything that went wrong."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "INTERNAL",
        reason: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What happened, for people."""
        self.code = code
        """Name of the gRPC status code."""
        self.reason = reason or code
        """Stable reason in upper snake case, to branch on."""
        self.violations = tuple(violations)
        """Every bad field or unmet condition."""
        self.metadata = dict(metadata or {})
        """Facts about the reason."""
        self.request_id = request_id
        """Finds the call in the services' logs."""
        self.retry_delay_s = retry_delay_s
        """Seconds after which the service would like the call again; None when it did not say."""


class InvalidArgumentError(EnxertoError):
    """One or more fields are bad."""


class NotFoundError(EnxertoError):
    """A resource is not there."""


class AlreadyExistsError(EnxertoError):
    """A resource is already there."""


class FailedPreconditionError(EnxertoError):
    """The system is not in the state that the request needs."""


class ImportFailedError(FailedPreconditionError):
    """A snapshot ended FAILED."""

    def __init__(self, message: str, *, findings: Sequence[Finding] = (), finding_count: int = 0, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.findings = tuple(findings)
        """What was found, errors first; at most 1,000."""
        self.finding_count = finding_count
        """How many findings there were in all."""


class TrainingFailedError(FailedPreconditionError):
    """A run ended FAILED."""


class DeploymentFailedError(FailedPreconditionError):
    """A deployment ended FAILED."""


class AbortedError(EnxertoError):
    """The resource changed since it was read."""


class ResourceExhaustedError(EnxertoError):
    """A quota, a queue or a limit."""


class UnavailableError(EnxertoError):
    """A service cannot be reached; the same call may succeed later."""


class PlatformNotRunningError(UnavailableError):
    """No local platform runs, and no addresses were given."""


class DeadlineExceededError(EnxertoError):
    """No answer in time."""


class UnauthenticatedError(EnxertoError):
    """No credentials, or bad ones."""


class PermissionDeniedError(EnxertoError):
    """The caller, or the configuration, does not allow it."""


class DataLossError(EnxertoError):
    """Stored bytes are missing or not what was stored."""


class ChecksumError(DataLossError):
    """Downloaded bytes do not have the sha256 that was promised."""


class CancelledError(EnxertoError):
    """The call was cancelled."""


class InternalError(EnxertoError):
    """Anything unforeseen."""


TABLE: Mapping[grpc.StatusCode, type[EnxertoError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.UNIMPLEMENTED: InternalError,
}
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError, request_id: str = "") -> EnxertoError:
    """Turn what grpc raised into ours, with everything that the status details say."""
    call: Any = error
    status = _status_of(call)
    if status is None:
        code: grpc.StatusCode = call.code()
        return TABLE[code](call.details() or code.name, code=code.name, request_id=request_id)
    return from_status(status, request_id)


def _status_of(call: Any) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(call)
    except ValueError:
        # The trailers contradict the call's own code, as a proxy in between may make them: trust the code.
        return None
    return status


def from_status(
    status: status_pb2.Status, request_id: str = "", kind: type[EnxertoError] | None = None
) -> EnxertoError:
    """Turn a status, as an RPC returns it or a failed resource stores it, into an error.

    Args:
        status: the code, the message and the details.
        request_id: id of the call, when there was one.
        kind: class to use instead of the code's.
    """
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    facts: dict[str, Any] = {"code": code.name, "request_id": request_id}
    violations: list[Violation] = []
    for detail in status.details:
        if info := _unpack(detail, error_details_pb2.ErrorInfo):
            facts.update(reason=info.reason, metadata=dict(info.metadata))
        elif request := _unpack(detail, error_details_pb2.RequestInfo):
            facts["request_id"] = request.request_id
        elif retry := _unpack(detail, error_details_pb2.RetryInfo):
            facts["retry_delay_s"] = retry.retry_delay.ToNanoseconds() / 1e9
        elif bad := _unpack(detail, error_details_pb2.BadRequest):
            violations += [Violation(item.field, item.description) for item in bad.field_violations]
        elif unmet := _unpack(detail, error_details_pb2.PreconditionFailure):
            violations += [Violation(item.subject, item.description) for item in unmet.violations]
        elif quota := _unpack(detail, error_details_pb2.QuotaFailure):
            violations += [Violation(item.subject, item.description) for item in quota.violations]
    return (kind or TABLE.get(code, InternalError))(status.message or code.name, violations=violations, **facts)


def _unpack(packed: Any, kind: type[M]) -> M | None:
    detail = kind()
    return detail if packed.Unpack(detail) else None
