"""The one table from errors to gRPC status codes and details (google.rpc, AIP-193).

Status details travel in the trailers, in base64 and beside the percent-encoded message, and HTTP/2 peers limit all of
that to 8 KiB by default. So a status that travels is cut to a budget: long texts end in an ellipsis, and violations
beyond the budget are counted instead of sent. A resource's stored error is not limited that way.
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
TRAILER_BUDGET_BYTES = 3000
"""For the list of violations; what comes beside it is bounded by the two limits below."""
_MESSAGE_BYTES = 600
_TEXT_BYTES = 250

Details = Callable[[Any, int | None], list[Message]]


def _cut(text: str, limit: int, budget: int | None) -> str:
    """The text, shortened to so many bytes of UTF-8 when there is a budget."""
    encoded = text.encode()
    if budget is None or len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def _none(_error: errors.EnxertoError, _budget: int | None) -> list[Message]:
    return []


def _bad_request(error: errors.InvalidArgumentError, budget: int | None) -> list[Message]:
    detail = error_details_pb2.BadRequest()
    left = len(error.violations)
    for violation in error.violations:
        field = _cut(violation.field, _TEXT_BYTES, budget)
        if budget is not None and detail.ByteSize() > budget:
            detail.field_violations.add(field=field, description=f"and {left} violations from here on")
            break
        detail.field_violations.add(field=field, description=_cut(violation.description, _TEXT_BYTES, budget))
        left -= 1
    return [detail]


def _resource_info(error: errors.NotFoundError | errors.AlreadyExistsError, budget: int | None) -> list[Message]:
    return [
        error_details_pb2.ResourceInfo(
            resource_type=f"{DOMAIN}/{error.resource_type}",
            resource_name=_cut(error.resource_name, _MESSAGE_BYTES, budget),
            description=_cut(error.message, _MESSAGE_BYTES, budget),
        )
    ]


def _precondition(error: errors.FailedPreconditionError, budget: int | None) -> list[Message]:
    detail = error_details_pb2.PreconditionFailure()
    left = len(error.violations)
    for violation in error.violations:
        subject = _cut(violation.subject, _TEXT_BYTES, budget)
        if budget is not None and detail.ByteSize() > budget:
            description = f"and {left} violations from here on"
            detail.violations.add(type=violation.type, subject=subject, description=description)
            break
        description = _cut(violation.description, _TEXT_BYTES, budget)
        detail.violations.add(type=violation.type, subject=subject, description=description)
        left -= 1
    return [detail]


def _retry_info(error: errors.UnavailableError | errors.ResourceExhaustedError, _budget: int | None) -> list[Message]:
    delay = Duration()
    delay.FromNanoseconds(int(error.retry_after_s * 1e9))
    return [error_details_pb2.RetryInfo(retry_delay=delay)]


def _quota(error: errors.ResourceExhaustedError, budget: int | None) -> list[Message]:
    quota = error_details_pb2.QuotaFailure()
    subject = _cut(error.subject, _TEXT_BYTES, budget)
    quota.violations.add(subject=subject, description=_cut(error.message, _MESSAGE_BYTES, budget))
    return [quota, *_retry_info(error, budget)]


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
    (errors.UnimplementedError, grpc.StatusCode.UNIMPLEMENTED, _none),
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
            metadata = {key: _cut(value, _TEXT_BYTES, budget_bytes) for key, value in error.metadata.items()}
            info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
            message = _cut(error.message, _MESSAGE_BYTES, budget_bytes)
            return _status(code, message, [info, *details(error, budget_bytes)])
    raise TypeError(f"{type(error).__name__} has no row in the error table")


def internal_status(request_id: str) -> status_pb2.Status:
    """The status of anything unforeseen: fixed text, and the request id that finds the stack in the log."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    request = error_details_pb2.RequestInfo(request_id=request_id)
    return _status(grpc.StatusCode.INTERNAL, "internal error; the request id finds it in the log", [info, request])


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    return status
