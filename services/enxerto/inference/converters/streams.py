"""Requests and answers of a stream."""

from google.protobuf.message import Message

from enxerto.inference.v1 import vision_service_pb2
from enxerto.kernel.errors import EnxertoError, Violations
from enxerto.runtime import logs
from enxerto.runtime.error_table import internal_status, to_status

_MAX_ID = 128


def stream_request(request: vision_service_pb2.PredictStreamRequest) -> tuple[str, Message]:
    """Which call a message stands for, and its request."""
    violations = Violations()
    kind = request.WhichOneof("request")
    if kind is None:
        violations.add("request", "is required")
    if len(request.id) > _MAX_ID:
        violations.add("id", f"must have at most {_MAX_ID} characters")
    violations.raise_if_any()
    assert kind is not None
    return kind, getattr(request, kind)


def stream_answer(identity: str, kind: str, answer: Message) -> vision_service_pb2.PredictStreamResponse:
    """A call's answer, as the answer to a message."""
    return vision_service_pb2.PredictStreamResponse(id=identity, **{kind: answer})  # type: ignore[arg-type]


def stream_error(identity: str, error: EnxertoError | None) -> vision_service_pb2.PredictStreamResponse:
    """Why a message has no answer; None is anything unforeseen."""
    status = internal_status(logs.request_id.get()) if error is None else to_status(error)
    return vision_service_pb2.PredictStreamResponse(id=identity[:_MAX_ID], error=status)
