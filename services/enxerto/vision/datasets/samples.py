"""One labelled image, whatever format it came in. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from enxerto.vision.specs import Split


@dataclass(frozen=True, slots=True)
class Box:
    """An object in pixels of the upright picture, x to the right and y down.

    Attributes:
        label: index into the class names.
        x_min: left edge.
        y_min: upper edge.
        x_max: right edge, greater than `x_min`.
        y_max: lower edge, greater than `y_min`.
        crowd: covers several objects (COCO's `iscrowd`) or is marked difficult: neither trained on nor counted.
    """

    label: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    crowd: bool = False

    @property
    def side(self) -> float:
        """Of the square with its area, which COCO's small, medium and large go by."""
        return math.sqrt((self.x_max - self.x_min) * (self.y_max - self.y_min))


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is known of a picture; which part is used depends on the task.

    Attributes:
        label: CLASSIFICATION: index into the class names. STYLE: 0 for a content picture, 1 for the style picture.
        boxes: DETECTION: every object; none is a picture of background.
        mask: SEGMENTATION: PNG of one channel and the upright picture's size; values are class indices, 255 is ignored.
    """

    label: int | None = None
    boxes: tuple[Box, ...] = ()
    mask: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One sample of a snapshot, with its bytes.

    Attributes:
        path: relative to the source's root, POSIX.
        split: what it is used for.
        width: of the upright picture, pixels.
        height: likewise.
        data: the encoded picture.
        annotation: what is known of it.
    """

    path: str
    split: Split
    width: int
    height: int
    data: bytes
    annotation: Annotation
