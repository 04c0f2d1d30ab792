"""Where the pixels of a picture lie in a network's input, and back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enxerto.vision.specs import FIT_MULTIPLE, PreprocessSpec, Resize

Boxes = npt.NDArray[np.float32]
"""(N, 4), float32: x_min, y_min, x_max, y_max."""


@dataclass(frozen=True, slots=True)
class Placement:
    """input = picture x scale + offset, along each axis.

    Attributes:
        picture_width: pixels, upright.
        picture_height: likewise.
        input_width: pixels of the network's input.
        input_height: likewise.
        scale_x: input pixels per picture pixel.
        scale_y: likewise.
        offset_x: input pixels left of the picture; negative when the input is cut out of it.
        offset_y: likewise, above.
    """

    picture_width: int
    picture_height: int
    input_width: int
    input_height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def boxes_to_input(self, boxes: npt.NDArray[Any]) -> Boxes:
        """(N, 4) boxes in picture pixels to input pixels; what lies outside of the input is cut off."""
        moved = np.asarray(boxes, np.float64).reshape(-1, 4) * self._scale + self._offset
        return _clip(moved, self.input_width, self.input_height)

    def boxes_to_picture(self, boxes: npt.NDArray[Any]) -> Boxes:
        """(N, 4) boxes in input pixels to picture pixels; what lies outside of the picture is cut off."""
        moved = (np.asarray(boxes, np.float64).reshape(-1, 4) - self._offset) / self._scale
        return _clip(moved, self.picture_width, self.picture_height)

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """The part of the input that shows the picture: left, top, right, bottom, in whole input pixels."""
        left, top = max(0, round(self.offset_x)), max(0, round(self.offset_y))
        right = min(self.input_width, round(self.offset_x + self.picture_width * self.scale_x))
        bottom = min(self.input_height, round(self.offset_y + self.picture_height * self.scale_y))
        return left, top, max(right, left + 1), max(bottom, top + 1)

    @property
    def _scale(self) -> npt.NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    @property
    def _offset(self) -> npt.NDArray[np.float64]:
        return np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y])


def place(spec: PreprocessSpec, width: int, height: int) -> Placement:
    """How `spec` puts an upright picture of `width` x `height` pixels into the input."""
    if spec.resize is Resize.STRETCH:
        return Placement(width, height, spec.width, spec.height, spec.width / width, spec.height / height, 0.0, 0.0)
    if spec.resize is Resize.FIT:
        scale = min(1.0, spec.width / width, spec.height / height)
        fit_width, fit_height = _multiple(width * scale, spec.width), _multiple(height * scale, spec.height)
        return Placement(width, height, fit_width, fit_height, fit_width / width, fit_height / height, 0.0, 0.0)
    if spec.resize is Resize.LETTERBOX:
        scale = min(spec.width / width, spec.height / height)
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (spec.width - inner_width) // 2, (spec.height - inner_height) // 2
        return Placement(
            width, height, spec.width, spec.height,
            inner_width / width, inner_height / height, float(left), float(top),
        )  # fmt: skip
    scale = max(spec.width / spec.crop_fraction / width, spec.height / spec.crop_fraction / height)
    return Placement(
        width, height, spec.width, spec.height,
        scale, scale, (spec.width - width * scale) / 2, (spec.height - height * scale) / 2,
    )  # fmt: skip


def overlaps(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intersection over union of each of (n, 4) boxes with each of (m, 4): (n, m), in [0, 1]."""
    one, other = ours.astype(np.float64)[:, None], theirs.astype(np.float64)[None]
    sides = np.clip(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    area = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - shared
    overlap: npt.NDArray[np.float64] = shared / np.maximum(area, 1e-9)
    return overlap


def _multiple(size: float, most: int) -> int:
    largest = max(FIT_MULTIPLE, most // FIT_MULTIPLE * FIT_MULTIPLE)
    return min(largest, max(FIT_MULTIPLE, round(size / FIT_MULTIPLE) * FIT_MULTIPLE))


def _clip(boxes: npt.NDArray[np.float64], width: int, height: int) -> Boxes:
    limits = np.array([width, height, width, height], np.float64)
    clipped: Boxes = np.clip(boxes, 0.0, limits).astype(np.float32)
    return clipped
