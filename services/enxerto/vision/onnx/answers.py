"""From a graph's outputs in input pixels to answers in the pixels of each picture as it was sent."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from enxerto.vision.contracts import Outputs
from enxerto.vision.geometry import Boxes, Placement

# Answers are made while a caller waits: level 1 is three times as fast as the default for a few per cent more bytes.
_PNG_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class DetectionAnswer:
    """The objects in one picture, highest score first.

    Attributes:
        boxes: (n, 4), float32, in picture pixels.
        scores: (n,), float32, in [0, 1].
        classes: (n,), int64, class indices.
        accepted: (n,), bool: whether the score reaches the version's operating threshold.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SegmentationAnswer:
    """The class of each pixel of one picture.

    Attributes:
        classes: (height, width), uint8, of the picture's size.
        confidence: mean probability of those classes, in [0, 1].
    """

    classes: npt.NDArray[np.uint8]
    confidence: float


def detection_answer(outputs: Outputs, row: int, placement: Placement) -> DetectionAnswer:
    """Objects of one image of a batch; rows that only fill the graph's output are left out.

    A box that lies in the borders around the picture alone is left out as well.
    """
    classes: npt.NDArray[np.int64] = outputs["classes"][row]
    boxes = placement.boxes_to_picture(outputs["boxes"][row])
    kept = (classes >= 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return DetectionAnswer(
        boxes[kept], outputs["scores"][row][kept], classes[kept], outputs["accepted"][row][kept].astype(np.bool_)
    )


def segmentation_answer(outputs: Outputs, row: int, placement: Placement) -> SegmentationAnswer:
    """The mask of one image of a batch, resampled to the picture's size by nearest neighbour.

    Pixels that a centre crop cut off take the class of the nearest pixel that the network saw.
    """
    mask: npt.NDArray[np.uint8] = outputs["classes"][row]
    columns = _source(placement.picture_width, placement.scale_x, placement.offset_x, mask.shape[1])
    rows = _source(placement.picture_height, placement.scale_y, placement.offset_y, mask.shape[0])
    # Two steps along one axis each: an index for every pixel would take eight bytes of it.
    return SegmentationAnswer(mask[rows][:, columns], float(outputs["confidence"][row]))


def style_answer(outputs: Outputs, row: int, placement: Placement) -> npt.NDArray[np.uint8]:
    """(height, width, 3), uint8: the painting of one image of a batch, at the size of the picture as it was sent.

    Raises:
        ValueError: the picture was cut or filled to make the input, so that there is no painting of all of it.
    """
    painted = outputs["pictures"][row]
    if placement.offset_x or placement.offset_y:
        raise ValueError("a painted picture needs an input without borders")
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(painted.transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    size = (placement.picture_width, placement.picture_height)
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    resized: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return resized


def to_png(pixels: npt.NDArray[Any]) -> bytes:
    """A PNG of (H, W) or (H, W, 3) uint8 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _source(size: int, scale: float, offset: float, limit: int) -> npt.NDArray[np.intp]:
    """The input pixel that each of `size` picture pixels' centres falls into."""
    centres = (np.arange(size) + 0.5) * scale + offset
    pixels: npt.NDArray[np.intp] = np.clip(np.floor(centres), 0, limit - 1).astype(np.intp)
    return pixels
