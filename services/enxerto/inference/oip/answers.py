"""Answers in the Open Inference Protocol: every output of the task as one raw tensor."""

from collections.abc import Sequence

from enxerto.inference.domain import PictureAnswer, Prediction, Tensor
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.specs import Task

# What fills the rows beyond the objects that were found, as in the graph's own output.
_FILL = {"classes": (-1).to_bytes(8, "little", signed=True)}


def prediction_to_proto(request: pb.ModelInferRequest, prediction: Prediction) -> pb.ModelInferResponse:
    """The outputs that were asked for, or all, with raw contents.

    Raises:
        InvalidArgumentError: the answers to several images differ in size, so that no tensor holds them.
    """
    version = prediction.version
    tensors = prediction.tensors
    if not tensors:
        names = [spec.name for spec in version.outputs]
        stack = _padded if version.task is Task.DETECTION else _stacked
        tensors = tuple(stack(name, prediction.pictures) for name in names)
    if request.outputs:
        by_name = {tensor.name: tensor for tensor in tensors}
        tensors = tuple(by_name[output.name] for output in request.outputs)
    return pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(version.name.number),
        id=request.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=[prediction.items, *tensor.row_shape]
            )
            for tensor in tensors
        ],
        raw_output_contents=[tensor.content for tensor in tensors],
    )


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
