"""Errors as the serialised google.rpc.Status that failed resources keep and that jobs leave."""

from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from enxerto.kernel import errors
from enxerto.kernel.errors import EnxertoError, PreconditionViolation, Violation
from enxerto.runtime.error_table import to_status


def encode_status(error: EnxertoError) -> bytes:
    """The same shape as an RPC's error, without the limit that trailers have."""
    encoded: bytes = to_status(error).SerializeToString()
    return encoded


def decode_status(encoded: bytes) -> EnxertoError:
    """The error that a job left, for the caller who waits for its answer; what is not known here is a loss of data."""
    status = Status.FromString(encoded)
    bad, precondition, info = (
        error_details_pb2.BadRequest(),
        error_details_pb2.PreconditionFailure(),
        error_details_pb2.ErrorInfo(),
    )
    for detail in status.details:
        for known in (bad, precondition, info):
            detail.Unpack(known)
    error: EnxertoError
    match status.code:
        case code_pb2.INVALID_ARGUMENT if bad.field_violations:
            error = errors.InvalidArgumentError([Violation(one.field, one.description) for one in bad.field_violations])
        case code_pb2.FAILED_PRECONDITION:
            found = [PreconditionViolation(one.type, one.subject, one.description) for one in precondition.violations]
            error = errors.FailedPreconditionError(status.message, found)
        case code_pb2.UNAVAILABLE:
            error = errors.UnavailableError(status.message)
        case code_pb2.RESOURCE_EXHAUSTED:
            error = errors.ResourceExhaustedError(status.message, subject=info.domain)
        case _:
            error = errors.DataLossError(status.message)
    if info.reason:
        # On the instance: the class is the contract's, the reason is the job's own.
        error.reason = info.reason  # type: ignore[misc]
    return error
