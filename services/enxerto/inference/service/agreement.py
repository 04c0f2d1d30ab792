"""How far two versions agree on one request, image by image."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from enxerto.inference.domain import Payload, PayloadKind, PictureAnswer, Prediction, Tensor
from enxerto.inference.service.masks import drawn
from enxerto.vision.geometry import overlaps
from enxerto.vision.specs import Task

_SAME_BOX = 0.5
_COMPARED = {
    Task.CLASSIFICATION: {"probabilities"},
    Task.DETECTION: {"boxes", "classes", "accepted"},
    Task.SEGMENTATION: {"classes"},
    Task.STYLE: {"pictures"},
}
"""Outputs that a comparison reads."""

_Row = dict[str, npt.NDArray[Any]]


def comparable(task: Task, payload: Payload) -> bool:
    """Whether the answers to such a request hold what is compared: those to Embed do not, for one."""
    narrow = payload.outputs and (payload.kind is PayloadKind.TENSOR or task is Task.CLASSIFICATION)
    return not narrow or _COMPARED[task] <= set(payload.outputs)


def agreements(ours: Prediction, theirs: Prediction) -> list[float]:
    """The agreement on every image, in [0, 1]; labels are compared by name.

    Classification: 1 where the most likely label is the same. Detection: twice the accepted boxes of the same label
    that overlap by 0.5, over all accepted boxes of both. Segmentation: mean intersection over union of the labels in
    either mask. Style: 1 less the mean difference of the colours.

    Raises:
        ValueError: the answers do not fit each other.
    """
    compare = {
        Task.CLASSIFICATION: _same_label,
        Task.DETECTION: _shared_boxes,
        Task.SEGMENTATION: _mean_iou,
        Task.STYLE: _near_colours,
    }[ours.version.task]
    left, right = ours.version.labels, theirs.version.labels
    return [compare(one, left, other, right) for one, other in zip(_rows(ours), _rows(theirs), strict=True)]


def _rows(prediction: Prediction) -> Iterable[_Row]:
    if prediction.pictures:
        return [_picture(picture, prediction.version.task) for picture in prediction.pictures]
    arrays = {tensor.name: tensor.values for tensor in prediction.tensors}
    return [{name: values[row] for name, values in arrays.items()} for row in range(prediction.items)]


def _picture(picture: PictureAnswer, task: Task) -> _Row:
    row = {tensor.name: _array(tensor) for tensor in picture.tensors}
    if task is Task.SEGMENTATION and "classes" not in row:
        row["classes"] = drawn(picture)
    return row


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    if tensor.datatype != "BYTES":
        return tensor.of_one
    with Image.open(io.BytesIO(tensor.content)) as picture:
        return np.asarray(picture)


def _same_label(ours: _Row, left: Sequence[str], theirs: _Row, right: Sequence[str]) -> float:
    one, other = ours["probabilities"], theirs["probabilities"]
    return float(left[int(one.argmax())] == right[int(other.argmax())])


def _shared_boxes(ours: _Row, left: Sequence[str], theirs: _Row, right: Sequence[str]) -> float:
    one, other = _accepted(ours, left), _accepted(theirs, right)
    total = len(one[1]) + len(other[1])
    if not total:
        return 1.0
    shared = overlaps(one[0], other[0])
    shared[np.array(one[1])[:, None] != np.array(other[1])[None, :]] = 0
    pairs = 0
    while shared.size and shared.max() >= _SAME_BOX:
        row, column = np.unravel_index(shared.argmax(), shared.shape)
        shared[row, :] = shared[:, column] = 0
        pairs += 1
    return 2 * pairs / total


def _accepted(row: _Row, labels: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[str]]:
    kept = row["accepted"].astype(bool) & (row["classes"] >= 0)
    return row["boxes"][kept], [labels[index] for index in row["classes"][kept].tolist()]


def _mean_iou(ours: _Row, left: Sequence[str], theirs: _Row, right: Sequence[str]) -> float:
    one, other = ours["classes"], theirs["classes"]
    if one.shape != other.shape:
        raise ValueError(f"the masks are {one.shape} and {other.shape}")
    mine = {left[index]: one == index for index in np.unique(one).tolist() if index < len(left)}
    yours = {right[index]: other == index for index in np.unique(other).tolist() if index < len(right)}
    nothing = np.zeros(one.shape, bool)
    scores = []
    for label in {*mine, *yours}:
        first, second = mine.get(label, nothing), yours.get(label, nothing)
        scores.append(float((first & second).sum() / (first | second).sum()))
    return sum(scores) / len(scores) if scores else 1.0


def _near_colours(ours: _Row, left: Sequence[str], theirs: _Row, right: Sequence[str]) -> float:
    one, other = (_unit(row["pictures"]) for row in (ours, theirs))
    if one.shape != other.shape:
        raise ValueError(f"the pictures are {one.shape} and {other.shape}")
    return float(1 - np.abs(one - other).mean())


def _unit(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Colours in [0, 1]."""
    scale = np.float32(1 / 255) if pixels.dtype == np.uint8 else np.float32(1)
    unit: npt.NDArray[np.float32] = pixels * scale
    return unit
