"""The one table from errors to gRPC status codes and details (google.rpc, AIP-193).

Status details travel in the trailers, which HTTP/2 peers limit to 8 KiB by default, so violations beyond a budget are
counted instead of sent; a resource's stored error is not limited that way.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from enxerto.kernel import errors

DOMAIN = "enxerto"
TRAILER_BUDGET_BYTES = 4096

Details = Callable[[Any, int | None], list[Message]]


def _none(_error: errors.EnxertoError, _budget: int | None) -> list[Message]:
    return []


def _bad_request(error: errors.InvalidArgumentError, budget: int | None) -> list[Message]:
    detail = error_details_pb2.BadRequest()
    left = len(error.violations)
    for violation in error.violations:
        if budget is not None and detail.ByteSize() > budget:
            detail.field_violations.add(field=violation.field, description=f"and {left} violations from here on")
            break
        detail.field_violations.add(field=violation.field[:200], description=violation.description[:500])
        left -= 1
    return [detail]


def _resource_info(error: errors.NotFoundError | errors.AlreadyExistsError, _budget: int | None) -> list[Message]:
    return [
        error_details_pb2.ResourceInfo(
            resource_type=f"{DOMAIN}/{error.resource_type}",
            resource_name=error.resource_name,
            description=error.message,
        )
    ]


def _precondition(error: errors.FailedPreconditionError, _budget: int | None) -> list[Message]:
    detail = error_details_pb2.PreconditionFailure()
    for violation in error.violations:
        detail.violations.add(type=violation.type, subject=violation.subject, description=violation.description)
    return [detail]


def _retry_info(error: errors.UnavailableError, _budget: int | None) -> list[Message]:
    delay = Duration()
    delay.FromNanoseconds(int(error.retry_after_s * 1e9))
    return [error_details_pb2.RetryInfo(retry_delay=delay)]


def _quota(error: errors.ResourceExhaustedError, budget: int | None) -> list[Message]:
    quota = error_details_pb2.QuotaFailure()
    quota.violations.add(subject=error.subject, description=error.message)
    return [quota, *_retry_info(error, budget)]  # type: ignore[arg-type]


# The most specific class comes first: the first row that fits is taken.
TABLE: tuple[tuple[type[errors.EnxertoError], grpc.StatusCode, Details], ...] = (
    (errors.InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND, _resource_info),
    (errors.AlreadyExistsError, grpc.StatusCode.ALREADY_EXISTS, _resource_info),
    (errors.FailedPreconditionError, grpc.StatusCode.FAILED_PRECONDITION, _precondition),
    (errors.AbortedError, grpc.StatusCode.ABORTED, _none),
    (errors.ResourceExhaustedError, grpc.StatusCode.RESOURCE_EXHAUSTED, _quota),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE, _retry_info),
    (errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, _none),
    (errors.PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED, _none),
    (errors.DataLossError, grpc.StatusCode.DATA_LOSS, _none),
)


def to_status(error: errors.EnxertoError, budget_bytes: int | None = None) -> status_pb2.Status:
    """Turn an error into the status that an RPC returns and that a failed resource stores.

    Args:
        error: what went wrong.
        budget_bytes: limit for the list of violations; None when the status does not travel in trailers.
    """
    for kind, code, details in TABLE:
        if isinstance(error, kind):
            info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
            return _status(code, error.message, [info, *details(error, budget_bytes)])
    raise TypeError(f"{type(error).__name__} has no row in the error table")


def internal_status(request_id: str) -> status_pb2.Status:
    """The status of anything unforeseen: fixed text, and the request id that finds the stack in the log."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    request = error_details_pb2.RequestInfo(request_id=request_id)
    return _status(grpc.StatusCode.INTERNAL, "internal error; the request id finds it in the log", [info, request])


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message[:2000])
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    return status
