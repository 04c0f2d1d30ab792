"""Between the replica's contract and the domain."""

from collections.abc import Sequence

from enxerto.inference.domain import AnswerForm, BatchAnswer, PictureAnswer, Segment, Tensor
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import vision_pb2

_FORMS = {
    pb.ANSWER_FORM_UNSPECIFIED: AnswerForm.PICTURES,
    pb.ANSWER_FORM_PICTURES: AnswerForm.PICTURES,
    pb.ANSWER_FORM_TENSORS: AnswerForm.TENSORS,
    pb.ANSWER_FORM_RLE: AnswerForm.RLE,
    pb.ANSWER_FORM_POLYGONS: AnswerForm.POLYGONS,
}


def answer_form(images: pb.EncodedImages) -> AnswerForm:
    """How the answers are to be written."""
    return _FORMS[images.form]


def tensor_arguments(tensor: pb.RawTensor) -> tuple[Sequence[bytes], tuple[int, ...], str]:
    """Parts, shape over all of them, and datatype; a front from before there was a choice says nothing of it."""
    return tensor.parts, tuple(tensor.shape), tensor.datatype or "FP32"


def response(answer: BatchAnswer) -> pb.PredictResponse:
    """A batch's answer on the wire."""
    return pb.PredictResponse(
        outputs=map(_tensor, answer.tensors),
        items=map(_picture, answer.pictures),
        errors=[pb.ItemError(index=bad.index, reason=bad.reason, message=bad.message) for bad in answer.refusals],
        decode_s=answer.decode_s,
        compute_s=answer.compute_s,
        encode_s=answer.encode_s,
    )


def _tensor(tensor: Tensor) -> pb.OutputTensor:
    return pb.OutputTensor(
        name=tensor.name, datatype=tensor.datatype, row_shape=tensor.row_shape, content=tensor.content
    )


def _picture(answer: PictureAnswer) -> pb.ItemOutputs:
    return pb.ItemOutputs(
        width=answer.width,
        height=answer.height,
        outputs=map(_tensor, answer.tensors),
        segments=map(_segment, answer.segments),
    )


def _segment(segment: Segment) -> vision_pb2.Segment:
    return vision_pb2.Segment(
        index=segment.index,
        pixel_count=segment.pixel_count,
        rle=segment.rle,
        polygons=[vision_pb2.Polygon(points=outline.points, hole=outline.hole) for outline in segment.outlines],
    )
