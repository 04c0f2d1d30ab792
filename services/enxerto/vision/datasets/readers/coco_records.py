"""The records of a COCO file: pictures and their objects, as small as they get."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enxerto.vision.datasets.findings import Finding, error

Ring = npt.NDArray[np.float64]
"""x, y, x, y, ... of three points or more."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths as they are written."""

    counts: tuple[int, ...] | bytes
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ListedAnnotation:
    """One object."""

    number: Any
    image: Any
    category: Any
    box: tuple[float, float, float, float] | None
    crowd: bool
    shape: tuple[Ring, ...] | Runs | None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One picture, as the file lists it."""

    number: Any
    name: str
    size: tuple[int, int] | None
    line: int


def read_image(value: Any, file: str, line: int) -> ListedImage | Finding:
    """An entry of `images` that begins on a line of the file, or what is wrong with it."""
    if not isinstance(value, dict) or not _is_id(value.get("id")) or not isinstance(value.get("file_name"), str):
        return error(file, "MALFORMED_IMAGE", f"{value!r:.80} needs an id and a file_name", line)
    sides = (value.get("width"), value.get("height"))
    size = (sides[0], sides[1]) if isinstance(sides[0], int) and isinstance(sides[1], int) else None
    return ListedImage(value["id"], value["file_name"], size, line)


def read_annotation(value: Any) -> ListedAnnotation | None:
    """An entry of `annotations`, or None when it does not say of which picture or class it is."""
    if not isinstance(value, dict) or not _is_id(value.get("image_id")) or not _is_id(value.get("category_id")):
        return None
    return ListedAnnotation(
        value.get("id"),
        value["image_id"],
        value["category_id"],
        _box(value.get("bbox")),
        bool(value.get("iscrowd", 0)),
        _shape(value.get("segmentation")),
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _box(given: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(given, list) or not all(isinstance(side, int | float) for side in given):
        return None
    try:
        left, top, width, height = (float(side) for side in given)
    except (ValueError, OverflowError):
        # Not four of them, or a whole number beyond every float.
        return None
    return left, top, width, height


def _shape(given: Any) -> tuple[Ring, ...] | Runs | None:
    try:
        if isinstance(given, list) and given:
            rings = tuple(np.asarray(ring, dtype=np.float64) for ring in given)
            return rings if all(ring.ndim == 1 and ring.size >= 6 and ring.size % 2 == 0 for ring in rings) else None
        if isinstance(given, dict):
            height, width = (int(side) for side in given["size"])
            counts = given["counts"]
            runs = counts.encode("ascii") if isinstance(counts, str) else tuple(int(run) for run in counts)
            array("q", (height, width, *runs))  # More than 64 bits, which are of no picture, overflow.
            return Runs(runs, (height, width))
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return None
