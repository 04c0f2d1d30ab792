"""From a graph's outputs for one image to its answer, in the form that the caller asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from enxerto.inference.domain import AnswerForm, PictureAnswer, Segment, Tensor
from enxerto.inference.replica.outlines import outlines
from enxerto.inference.replica.run_lengths import run_lengths
from enxerto.vision.contracts import IGNORED, Outputs
from enxerto.vision.geometry import Placement
from enxerto.vision.onnx.answers import detection_answer, segmentation_answer, style_answer, to_png
from enxerto.vision.specs import Task

_FLOAT32_BYTES = 4


class AnswerTooLargeError(Exception):
    """The answers to one batch would be larger than a message may be."""


class AnswerBudget:
    """What the answers of one batch may take. Several threads spend it."""

    def __init__(self, size_bytes: int) -> None:
        self._size = self._left = size_bytes
        self._lock = Lock()

    def spend(self, size_bytes: int) -> None:
        """Take so many bytes.

        Raises:
            AnswerTooLargeError: they are not left.
        """
        with self._lock:
            if size_bytes > self._left:
                text = f"the answers would have more than {self._size} bytes: send smaller pictures, or fewer at once"
                raise AnswerTooLargeError(text)
            self._left -= size_bytes


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    """What the graph gave for one image."""

    position: int
    """Of the image in the batch."""
    placement: Placement
    """Of the picture in the graph's input."""
    outputs: Outputs
    """For the whole call that the image went through."""
    row: int
    """The image's, in `outputs`."""


def encode(task: Task, given: GraphAnswer, form: AnswerForm, budget: AnswerBudget) -> PictureAnswer:
    """The answer to one image.

    Args:
        task: not CLASSIFICATION, whose answers have one size.
        given: by the graph.
        form: how masks and painted pictures are written.
        budget: what the answers of the batch may take.

    Raises:
        AnswerTooLargeError: the budget is spent.
    """
    if task is Task.DETECTION:
        return _detection(given)
    if task is Task.SEGMENTATION:
        return _segmentation(given, form, budget)
    return _painting(given, form, budget)


def _detection(given: GraphAnswer) -> PictureAnswer:
    answer = detection_answer(given.outputs, given.row, given.placement)
    tensors = (
        Tensor("boxes", "FP32", answer.boxes.shape, np.ascontiguousarray(answer.boxes, "<f4").tobytes()),
        Tensor("scores", "FP32", answer.scores.shape, answer.scores.astype("<f4").tobytes()),
        Tensor("classes", "INT64", answer.classes.shape, answer.classes.astype("<i8").tobytes()),
        Tensor("accepted", "BOOL", answer.accepted.shape, answer.accepted.tobytes()),
    )
    return PictureAnswer(given.placement.picture_width, given.placement.picture_height, tensors)


def _segmentation(given: GraphAnswer, form: AnswerForm, budget: AnswerBudget) -> PictureAnswer:
    width, height = given.placement.picture_width, given.placement.picture_height
    if form is AnswerForm.TENSORS:
        budget.spend(width * height)
    answer = segmentation_answer(given.outputs, given.row, given.placement)
    confidence = Tensor("confidence", "FP32", (1,), np.array([answer.confidence], "<f4").tobytes())
    if form is AnswerForm.TENSORS:
        mask = Tensor("classes", "UINT8", (height, width), np.ascontiguousarray(answer.classes).tobytes())
        return PictureAnswer(width, height, (mask, confidence))
    segments = tuple(_segments(answer.classes, form, budget))
    if form is not AnswerForm.PICTURES:
        return PictureAnswer(width, height, (confidence,), segments)
    return PictureAnswer(width, height, (_png("classes", answer.classes, budget), confidence), segments)


def _segments(classes: npt.NDArray[np.uint8], form: AnswerForm, budget: AnswerBudget) -> Iterator[Segment]:
    """The classes that occur, the largest first."""
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)[:IGNORED]
    for index in np.argsort(-counts, kind="stable").tolist():
        if not counts[index]:
            return
        rle = run_lengths(classes == index) if form is AnswerForm.RLE else ""
        polygons = outlines(classes == index) if form is AnswerForm.POLYGONS else ()
        segment = Segment(index, int(counts[index]), rle, polygons)
        budget.spend(segment.size_bytes)
        yield segment


def _painting(given: GraphAnswer, form: AnswerForm, budget: AnswerBudget) -> PictureAnswer:
    width, height = given.placement.picture_width, given.placement.picture_height
    if form is AnswerForm.TENSORS:
        budget.spend(3 * _FLOAT32_BYTES * width * height)
    pixels = style_answer(given.outputs, given.row, given.placement)
    if form is not AnswerForm.TENSORS:
        return PictureAnswer(width, height, (_png("pictures", pixels, budget),))
    content = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype("<f4") / np.float32(255)
    return PictureAnswer(width, height, (Tensor("pictures", "FP32", (3, height, width), content.tobytes()),))


def _png(name: str, pixels: npt.NDArray[np.uint8], budget: AnswerBudget) -> Tensor:
    content = to_png(pixels)
    budget.spend(len(content))
    return Tensor(name, "BYTES", (), content)
