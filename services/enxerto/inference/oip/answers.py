"""Answers in the Open Inference Protocol: outputs as raw tensors, as the best classes, or in shared memory."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from enxerto.inference.domain import PictureAnswer, Prediction, Tensor
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.outputs import RequestedOutput
from enxerto.inference.oip.shared_memory import RegionError, Regions
from enxerto.inference.oip.tensors import pack_bytes
from enxerto.kernel.errors import InvalidArgumentError, Violation, Violations
from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.specs import Task

# What fills the rows beyond the objects that were found, as in the graph's own output.
_FILL = {"classes": (-1).to_bytes(8, "little", signed=True)}


def prediction_to_proto(
    request: pb.ModelInferRequest,
    wanted: Sequence[RequestedOutput],
    prediction: Prediction,
    regions: Regions | None = None,
) -> pb.ModelInferResponse:
    """The outputs that were asked for, with raw contents; those for shared memory are written there.

    Raises:
        InvalidArgumentError: the answers to several images differ in size, so that no tensor holds them; or an output
            does not fit its region.
    """
    by_name = {tensor.name: tensor for tensor in _tensors(prediction)}
    tensors = [_formed(by_name[output.name], output, prediction) for output in wanted]
    _check_places(tensors, wanted)
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=str(prediction.version.name.number), id=request.id
    )
    for index, (tensor, output) in enumerate(zip(tensors, wanted, strict=True)):
        response.outputs.add(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=(prediction.items, *tensor.row_shape),
            parameters=_place_to_proto(output, tensor),
        )
        response.raw_output_contents.append(_delivered(tensor.content, index, output, regions))
    return response


def _tensors(prediction: Prediction) -> Sequence[Tensor]:
    if prediction.tensors:
        return prediction.tensors
    stack = _padded if prediction.version.task is Task.DETECTION else _stacked
    return [stack(spec.name, prediction.pictures) for spec in prediction.version.outputs]


def _formed(tensor: Tensor, output: RequestedOutput, prediction: Prediction) -> Tensor:
    """The tensor, or the best classes of each of its rows."""
    if not output.classes:
        return tensor
    labels = prediction.version.labels
    scores = tensor.values
    best = np.argsort(-scores, axis=1, kind="stable")[:, : output.classes]
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}".encode()
        for row, indices in zip(scores, best, strict=True)
        for index in indices.tolist()
    ]
    return replace(tensor, datatype="BYTES", row_shape=(best.shape[1],), content=pack_bytes(texts))


def _check_places(tensors: Sequence[Tensor], wanted: Sequence[RequestedOutput]) -> None:
    """Nothing is written unless everything fits."""
    violations = Violations()
    for index, (tensor, output) in enumerate(zip(tensors, wanted, strict=True)):
        if output.place is not None and len(tensor.content) > output.place.size_bytes:
            text = f"is {output.place.size_bytes}, {tensor.name!r} has {len(tensor.content)} bytes"
            violations.add(f"outputs[{index}].parameters[shared_memory_byte_size]", text)
    violations.raise_if_any()


def _delivered(content: bytes, index: int, output: RequestedOutput, regions: Regions | None) -> bytes:
    """What the message itself carries of an output."""
    if output.place is None or regions is None:
        return content
    region = regions.get(output.place.region)
    try:
        if region is None:
            raise RegionError(f"region {output.place.region!r} was unregistered meanwhile")
        region.write(content, output.place.offset_bytes)
    except RegionError as error:
        field = f"outputs[{index}].parameters[shared_memory_region]"
        raise InvalidArgumentError([Violation(field, str(error))]) from error
    return b""


def _place_to_proto(output: RequestedOutput, tensor: Tensor) -> dict[str, pb.InferParameter]:
    place = output.place
    if place is None:
        return {}
    return {
        "shared_memory_region": pb.InferParameter(string_param=place.region),
        "shared_memory_byte_size": pb.InferParameter(int64_param=len(tensor.content)),
        "shared_memory_offset": pb.InferParameter(int64_param=place.offset_bytes),
    }


def _padded(name: str, pictures: Sequence[PictureAnswer]) -> Tensor:
    """Objects of each image, filled up to as many rows as the graph gives."""
    found = [picture.tensor(name) for picture in pictures]
    datatype, row_shape = found[0].datatype, found[0].row_shape[1:]
    blank = Tensor(name, datatype, row_shape, b"").row_bytes
    fill = _FILL.get(name, bytes(blank))
    content = b"".join(tensor.content + fill * (MAX_DETECTIONS - tensor.row_shape[0]) for tensor in found)
    return Tensor(name, datatype, (MAX_DETECTIONS, *row_shape), content)


def _stacked(name: str, pictures: Sequence[PictureAnswer]) -> Tensor:
    """Answers of one size."""
    found = [picture.tensor(name) for picture in pictures]
    sizes = sorted({(picture.width, picture.height) for picture in pictures})
    if len(sizes) > 1:
        text = " and ".join(f"{width} x {height}" for width, height in sizes[:2])
        rule = "answers are as large as the pictures: send pictures of one size, or one in a request"
        raise InvalidArgumentError([Violation("inputs[0]", f"{rule}; these are {text}")])
    content = found[0].content if len(found) == 1 else b"".join(tensor.content for tensor in found)
    # A number for each image has no axes of its own.
    row_shape = () if name == "confidence" else found[0].row_shape
    return Tensor(name, found[0].datatype, row_shape, content)
