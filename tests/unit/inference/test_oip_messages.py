"""Requests off the wire: parsed as generated code parses them, their raw contents not copied."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.messages import InferRequest

RAW = np.random.default_rng(0).bytes(300)
MESSAGE = pb.ModelInferRequest(
    model_name="pets",
    model_version="3",
    id="one",
    parameters={"priority": pb.InferParameter(int64_param=1)},
    inputs=[pb.ModelInferRequest.InferInputTensor(name="images", datatype="FP32", shape=[1, 3, 2, 2])],
    outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")],
    raw_input_contents=[RAW, b"", b"second"],
)
WHOLE = MESSAGE.SerializeToString()


def as_generated(request: InferRequest) -> pb.ModelInferRequest:
    """One message again."""
    both = pb.ModelInferRequest()
    both.CopyFrom(request.message)
    both.raw_input_contents[:] = map(bytes, request.raw)
    return both


def test_raw_contents_stay_where_they_are() -> None:
    request = InferRequest.from_bytes(WHOLE)
    assert not request.message.raw_input_contents
    assert request.raw == (RAW, b"", b"second")
    assert all(part.obj is WHOLE for part in request.raw)
    assert as_generated(request) == MESSAGE


@pytest.mark.parametrize(
    "unknown",
    [b"\xf8\x07\xac\x02", b"\xf9\x07" + bytes(8), b"\xfa\x07\x02xy", b"\xfb\x07\xfc\x07", b"\xfd\x07" + bytes(4)],
    ids=["varint", "fixed64", "length", "group", "fixed32"],
)
def test_fields_come_in_any_order_with_unknown_ones_among_them(unknown: bytes) -> None:
    head = pb.ModelInferRequest(model_name="pets").SerializeToString()
    tail = pb.ModelInferRequest(raw_input_contents=[RAW], id="one").SerializeToString()
    data = tail + unknown + head + tail
    request = InferRequest.from_bytes(data)
    assert request.raw == (RAW, RAW)
    assert as_generated(request) == pb.ModelInferRequest.FromString(data)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_damaged_is_refused_as_generated_code_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        data = bytearray(WHOLE[: random.integers(len(WHOLE) + 1)])
        for _ in range(random.integers(3) if data else 0):
            data[random.integers(len(data))] = random.integers(256)
        try:
            expected = pb.ModelInferRequest.FromString(bytes(data))
        except DecodeError:
            with pytest.raises(DecodeError):
                InferRequest.from_bytes(bytes(data))
            continue
        assert as_generated(InferRequest.from_bytes(bytes(data))).SerializeToString(deterministic=True) == (
            expected.SerializeToString(deterministic=True)
        )
