"""Reads the status that a failed call carries: code, message and google.rpc details."""

from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A failed call, decoded."""

    code: grpc.StatusCode
    status: status_pb2.Status

    @property
    def message(self) -> str:
        return str(self.status.message)

    def detail(self, kind: type[M]) -> M | None:
        """The first detail of a kind, or None."""
        for packed in self.status.details:
            found = kind()
            if packed.Unpack(found):
                return found
        return None

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """The one ErrorInfo that every error carries."""
        found = [packed for packed in self.status.details if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
        assert len(found) == 1, f"expected one ErrorInfo, got {len(found)}: {self.status}"
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info is not None
        return info

    @property
    def reason(self) -> str:
        """The stable reason."""
        return str(self.info.reason)

    @property
    def violations(self) -> dict[str, str]:
        """Field to description, from BadRequest; empty when there is none."""
        found = self.detail(error_details_pb2.BadRequest)
        return {violation.field: violation.description for violation in found.field_violations} if found else {}

    @property
    def preconditions(self) -> list[tuple[str, str]]:
        """(type, subject) of each unmet condition, from PreconditionFailure; empty when there is none."""
        found = self.detail(error_details_pb2.PreconditionFailure)
        return [(violation.type, violation.subject) for violation in found.violations] if found else []

    @property
    def resource(self) -> tuple[str, str] | None:
        """(type, name) from ResourceInfo, or None."""
        found = self.detail(error_details_pb2.ResourceInfo)
        return (found.resource_type, found.resource_name) if found else None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds from RetryInfo, or None."""
        found = self.detail(error_details_pb2.RetryInfo)
        return found.retry_delay.seconds + found.retry_delay.nanos / 1e9 if found else None


def failed_call(error: grpc.RpcError) -> FailedCall:
    """Decode an error of a synchronous or an asyncio stub.

    A status without details (one that gRPC itself made) decodes to a status with its code and message only.
    """
    code = error.code()  # type: ignore[attr-defined]
    for key, value in error.trailing_metadata() or ():  # type: ignore[attr-defined]
        if key == _DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            assert status.code == code.value[0], f"trailers say {status.code}, the call says {code}"
            return FailedCall(code, status)
    message = error.details() or ""  # type: ignore[attr-defined]
    return FailedCall(code, status_pb2.Status(code=code.value[0], message=message))
