"""Between the replica's contract and the domain."""

from collections.abc import Sequence

from enxerto.inference.domain import AnswerForm, BatchAnswer, Occupancy, PictureAnswer, Segment, Tensor
from enxerto.inference.errors import ModelTooLargeError, NoRoomError
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import vision_pb2
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import VersionName

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


def not_loaded(error: EnxertoError) -> pb.PredictResponse:
    """Why there is no answer; the front knows which version it asked for."""
    if isinstance(error, NoRoomError):
        said = pb.NotLoaded(reason=pb.NotLoaded.REASON_NO_ROOM_NOW, message=error.why)
    elif isinstance(error, ModelTooLargeError):
        said = pb.NotLoaded(reason=pb.NotLoaded.REASON_TOO_LARGE, message=error.why)
    else:
        text = f"cannot be loaded: {error.message}"
        said = pb.NotLoaded(reason=pb.NotLoaded.REASON_NOT_SERVABLE, message=text)
    return pb.PredictResponse(not_loaded=said)


def arrange_arguments(request: pb.ArrangeRequest) -> tuple[set[VersionName], set[VersionName]]:
    """The versions that a replica is for, and those that stay."""
    return set(map(VersionName.parse, request.model_versions)), set(map(VersionName.parse, request.pinned_versions))


def occupancy(held: Occupancy) -> pb.ArrangeResponse:
    """What a replica holds, on the wire."""
    return pb.ArrangeResponse(
        model_count=held.models,
        held_bytes=held.held_bytes,
        budget_bytes=held.budget_bytes,
        load_count=held.loads,
        eviction_count=held.evictions,
        waiting_count=held.waiting,
    )


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
