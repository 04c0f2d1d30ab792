"""Tensors on the wire, and every way in which they can lie."""

import struct

import numpy as np
import pytest

from enxerto.inference.domain import PayloadKind, ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.messages import InferRequest
from enxerto.inference.oip.names import ModelKey, model_key
from enxerto.inference.oip.requests import call
from enxerto.inference.oip.tensors import (
    DATATYPES,
    TYPED_FIELDS,
    TensorError,
    check_finite,
    pack_bytes,
    pack_pixels,
    parse_bytes,
)
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import DeploymentName, VersionName
from enxerto.vision.specs import Task, TensorSpec

OUTPUT = TensorSpec("probabilities", "FP32", (-1, 2))
VERSION = ServableVersion(VersionName("default", "pets", 3), Task.CLASSIFICATION, ("cat", "dog"), 2, 2, (OUTPUT,))
TENSOR = np.full((1, 3, 2, 2), 0.5, "<f4")


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def test_bytes_are_taken_apart() -> None:
    assert parse_bytes(packed(b"a", b"", b"ccc"), 3) == (b"a", b"", b"ccc")


@pytest.mark.parametrize(
    ("raw", "count", "says"),
    [
        (packed(b"abc")[:-1], 1, "declares 3 bytes, 2 are left"),
        (struct.pack("<I", 2**32 - 1) + b"abc", 1, "declares 4294967295 bytes"),
        (packed(b"abc") + b"\x01", 2, "1 of the 4 bytes"),
        (packed(b"abc", b"d"), 1, "follow the 1 elements"),
        (packed(b"abc"), 2, "has 1 elements"),
        (b"", 1, "has 0 elements"),
    ],
)
def test_a_lying_length_is_refused(raw: bytes, count: int, says: str) -> None:
    with pytest.raises(TensorError, match=says):
        parse_bytes(raw, count)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    tensor = TENSOR.copy()
    tensor[0, 1, 0, 0] = value
    with pytest.raises(TensorError, match="element 4 is not a finite number"):
        check_finite(tensor.tobytes(), "FP32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_in_half_precision(value: float) -> None:
    tensor = np.full(6, np.finfo(np.float16).max, np.float16)
    check_finite(tensor.tobytes(), "FP16")
    tensor[3] = value
    with pytest.raises(TensorError, match="element 3 is not a finite number"):
        check_finite(tensor.tobytes(), "FP16")


def test_bytes_are_put_together_again() -> None:
    assert pack_bytes([b"a", b"", b"ccc"]) == packed(b"a", b"", b"ccc")


def test_typed_pixels_hold_a_byte_each() -> None:
    assert pack_pixels([0, 255, 7]) == bytes([0, 255, 7])
    with pytest.raises(TensorError, match="element 1 is 256, UINT8 holds 0 to 255"):
        pack_pixels([0, 256, 300])


def test_every_datatype_has_a_size_and_a_field_of_the_protocol() -> None:
    assert {one.typed for one in DATATYPES.values()} - {None} == set(TYPED_FIELDS)
    assert {name for name, one in DATATYPES.items() if one.typed is None} == {"FP16", "BF16"}
    assert {name for name, one in DATATYPES.items() if one.size_bytes is None} == {"BYTES"}


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"FP32", "FP16", "UINT8", "BYTES"}))
def test_a_datatype_that_no_image_has_is_refused_with_what_else_is_wrong(datatype: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        call(request(datatype=datatype, raw=[b"123"]), VERSION, 8)
    assert [violation.field for violation in refusal.value.violations] == [
        "inputs[0].datatype",
        "raw_input_contents[0]",
    ]


def test_half_precision_is_raw_only() -> None:
    contents = pb.InferTensorContents(fp32_contents=TENSOR.ravel())
    with pytest.raises(InvalidArgumentError, match="FP16 is sent as raw_input_contents"):
        call(request(datatype="FP16", raw=[], contents=contents), VERSION, 8)


def request(**changes: object) -> InferRequest:
    return InferRequest.from_bytes(message(**changes).SerializeToString())


def message(**changes: object) -> pb.ModelInferRequest:
    fields: dict[str, object] = {"name": "images", "datatype": "FP32", "shape": TENSOR.shape}
    tensor = {key: changes.pop(key) for key in ("name", "datatype", "shape", "contents") if key in changes}
    raw = changes.pop("raw", [TENSOR.tobytes()])
    entry = pb.ModelInferRequest.InferInputTensor(**{**fields, **tensor})  # type: ignore[arg-type]
    return pb.ModelInferRequest(
        model_name="pets",
        inputs=[entry],
        raw_input_contents=raw,  # type: ignore[arg-type]
        **changes,  # type: ignore[arg-type]
    )


def test_raw_floats_are_forwarded_as_they_are() -> None:
    result = call(request(), VERSION, 8).payload
    assert (result.kind, result.parts, result.items) == (PayloadKind.TENSOR, (TENSOR.tobytes(),), 1)
    assert result.row_shape == (3, 2, 2)


def test_typed_floats_mean_the_same() -> None:
    contents = pb.InferTensorContents(fp32_contents=TENSOR.ravel())
    assert call(request(raw=[], contents=contents), VERSION, 8).payload.parts == (TENSOR.tobytes(),)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_encoded_images_raw_or_typed(shape: list[int]) -> None:
    raw = call(request(datatype="BYTES", shape=shape, raw=[packed(b"a", b"bb")]), VERSION, 8).payload
    contents = pb.InferTensorContents(bytes_contents=[b"a", b"bb"])
    typed = call(request(datatype="BYTES", shape=shape, raw=[], contents=contents), VERSION, 8).payload
    assert raw == typed
    assert raw.parts == (b"a", b"bb")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "pixels"}, "inputs[0].name"),
        ({"datatype": "BF16"}, "inputs[0].datatype"),
        ({"datatype": "INT8"}, "inputs[0].datatype"),
        ({"datatype": "FP16"}, "raw_input_contents[0]"),
        ({"datatype": ""}, "inputs[0].datatype"),
        ({"shape": [1, 2, 2, 3]}, "inputs[0].shape"),
        ({"shape": [3, 2, 2]}, "inputs[0].shape"),
        ({"shape": [0, 3, 2, 2], "raw": [b""]}, "inputs[0].shape"),
        ({"shape": [10_000, 3, 2, 2]}, "inputs[0].shape"),
        ({"shape": [-1, 3, 2, 2]}, "inputs[0].shape"),
        ({"raw": [TENSOR.tobytes()[:-4]]}, "raw_input_contents[0]"),
        ({"raw": [TENSOR.tobytes()] * 2}, "raw_input_contents"),
        ({"raw": []}, "inputs[0].contents"),
        ({"contents": pb.InferTensorContents(fp32_contents=[1])}, "inputs[0].contents"),
        ({"raw": [], "contents": pb.InferTensorContents(fp32_contents=[1])}, "inputs[0].contents"),
        ({"raw": [], "contents": pb.InferTensorContents(fp64_contents=[1])}, "inputs[0].contents.fp64_contents"),
        ({"raw": [np.full_like(TENSOR, np.nan).tobytes()]}, "raw_input_contents[0]"),
        ({"outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")]}, "outputs[0].name"),
        ({"datatype": "BYTES", "shape": [1], "raw": [b"\xff\xff\xff\xff"]}, "raw_input_contents[0]"),
        ({"datatype": "BYTES", "shape": [1, 1, 1], "raw": [packed(b"a")]}, "inputs[0].shape"),
    ],
)
def test_each_wrong_field_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        call(request(**changes), VERSION, 8)
    assert field in [violation.field for violation in refusal.value.violations]


def test_two_inputs_are_refused() -> None:
    asked = request()
    asked.message.inputs.append(asked.message.inputs[0])
    with pytest.raises(InvalidArgumentError, match="exactly one tensor"):
        call(asked, VERSION, 8)


def test_a_model_is_an_id_or_a_full_name() -> None:
    expected = DeploymentName("default", "pets")
    assert model_key("pets", "", "n", "v") == ModelKey(expected)
    assert model_key("pets", "production", "n", "v") == ModelKey(expected, alias="production")
    assert model_key(str(expected), "12", "n", "v").number == 12
    with pytest.raises(InvalidArgumentError) as refusal:
        model_key("a/b", "the newest", "n", "v")
    assert [violation.field for violation in refusal.value.violations] == ["n", "v"]
