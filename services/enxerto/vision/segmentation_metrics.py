"""Metrics of masks, from a confusion matrix that grows picture by picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enxerto.vision.contracts import IGNORED

Counts = npt.NDArray[np.int64]
"""(classes, classes) pixels: rows are the truth, columns the answer."""


@dataclass(frozen=True, slots=True)
class ClassOverlap:
    """Of one class.

    Attributes:
        iou: pixels that are truth and answer / pixels that are either (Jaccard index), in [0, 1].
        dice: twice the pixels that are both / sum of the two (F1), in [0, 1].
        pixels: of the truth.
        occurs: whether it is in the truth or in an answer; the means leave out what is in neither.
    """

    iou: float
    dice: float
    pixels: int
    occurs: bool


@dataclass(frozen=True, slots=True)
class SegmentationMetrics:
    """Of a split.

    Attributes:
        miou: mean IoU of the classes that occur.
        mean_dice: mean Dice of the classes that occur.
        pixel_accuracy: part of the labelled pixels whose class is right.
        per_class: in label order.
    """

    miou: float
    mean_dice: float
    pixel_accuracy: float
    per_class: tuple[ClassOverlap, ...]

    def to_json(self) -> Mapping[str, Any]:
        """The metrics as plain JSON values."""
        return {
            "miou": self.miou,
            "mean_dice": self.mean_dice,
            "pixel_accuracy": self.pixel_accuracy,
            "per_class": [{"iou": one.iou, "dice": one.dice, "pixels": one.pixels} for one in self.per_class],
        }


def count_pixels(truth: npt.NDArray[Any], answer: npt.NDArray[Any], classes: int) -> Counts:
    """Compare masks of one shape; pixels whose truth is 255 are left out.

    Raises:
        ValueError: the shapes differ, or an index is neither below `classes` nor, in the truth, 255.
    """
    if truth.shape != answer.shape:
        raise ValueError(f"masks differ in shape: {truth.shape} and {answer.shape}")
    labelled = truth != IGNORED
    true, found = truth[labelled].astype(np.int64), answer[labelled].astype(np.int64)
    if len(true) and (min(true.min(), found.min()) < 0 or max(true.max(), found.max()) >= classes):
        raise ValueError(f"class indices must be in 0..{classes - 1}")
    return np.bincount(true * classes + found, minlength=classes * classes).reshape(classes, classes)


def segmentation_metrics(counts: Counts) -> SegmentationMetrics:
    """Metrics of a confusion matrix, which may be the sum of many.

    IoU is computed over the pixels of the whole split, not averaged over pictures, as PASCAL VOC does
    (Everingham et al. 2015, section 4.3).

    Raises:
        ValueError: no pixel was counted.
    """
    if counts.sum() == 0:
        raise ValueError("no labelled pixel")
    both = np.diag(counts).astype(np.float64)
    true, found = counts.sum(axis=1), counts.sum(axis=0)
    occurs = (true + found) > 0
    iou = both / np.maximum(true + found - both, 1)
    dice = 2 * both / np.maximum(true + found, 1)
    return SegmentationMetrics(
        miou=float(iou[occurs].mean()),
        mean_dice=float(dice[occurs].mean()),
        pixel_accuracy=float(both.sum() / counts.sum()),
        per_class=tuple(
            ClassOverlap(float(one_iou), float(one_dice), int(pixels), bool(there))
            for one_iou, one_dice, pixels, there in zip(iou, dice, true, occurs, strict=True)
        ),
    )
