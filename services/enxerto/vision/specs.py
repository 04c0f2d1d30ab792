"""Value types shared by training, export and serving. Pure: no torch, no pyarrow."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast

Interpolation = Literal["bilinear", "bicubic"]

FIT_MULTIPLE: Final = 8
"""Sides of an input of `Resize.FIT` are multiples of this."""

LETTERBOX_GREY: Final = 114
"""What fills the borders of `Resize.LETTERBOX`; YOLO's value, which makes no edge on most pictures."""

_MAX_SIDE: Final = 4096


class Task(enum.StrEnum):
    """What a network answers."""

    CLASSIFICATION = "CLASSIFICATION"
    DETECTION = "DETECTION"
    SEGMENTATION = "SEGMENTATION"
    STYLE = "STYLE"


class Split(enum.StrEnum):
    """Part of a dataset: TRAIN fits, VAL selects the epoch, TEST is only reported."""

    TRAIN = "TRAIN"
    VAL = "VAL"
    TEST = "TEST"


class Resize(enum.StrEnum):
    """How a picture of any size becomes the network's input."""

    CENTER_CROP = "CENTER_CROP"
    """The shorter side becomes size / crop_fraction, and the centre is cut out."""
    LETTERBOX = "LETTERBOX"
    """The whole picture fits, its aspect ratio kept, centred; grey fills the rest."""
    STRETCH = "STRETCH"
    """Each side is scaled on its own."""
    FIT = "FIT"
    """The aspect ratio is kept and nothing is filled: inputs differ in size, each side at most the spec's."""


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How an encoded image becomes the network's input.

    Resize and crop happen outside the graph; `mean` and `std` are applied inside it.

    Attributes:
        height: rows of the input, pixels; the most that there are with `Resize.FIT`.
        width: columns of the input, pixels; likewise.
        crop_fraction: the part of the resized shorter side that the centre crop keeps, in (0, 1]; 1 for other ways.
        interpolation: resampling filter, antialiased.
        mean: per channel (RGB), of values in [0, 1].
        std: per channel (RGB), of values in [0, 1], positive.
        resize: how a picture of any size becomes the input.
    """

    height: int
    width: int
    crop_fraction: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize = Resize.CENTER_CROP

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not (1 <= self.height <= _MAX_SIDE and 1 <= self.width <= _MAX_SIDE):
            problems.append(f"height and width must be in 1..{_MAX_SIDE}")
        if not 0 < self.crop_fraction <= 1:
            problems.append("crop_fraction must be in (0, 1]")
        if self.resize is not Resize.CENTER_CROP and self.crop_fraction != 1:
            problems.append("crop_fraction must be 1 without a centre crop")
        if self.interpolation not in ("bilinear", "bicubic"):
            problems.append("interpolation must be bilinear or bicubic")
        if len(self.mean) != 3 or not all(math.isfinite(value) for value in self.mean):
            problems.append("mean must be three finite numbers")
        if len(self.std) != 3 or not all(math.isfinite(value) and value > 0 for value in self.std):
            problems.append("std must be three positive finite numbers")
        if problems:
            raise ValueError("; ".join(problems))

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return {
            "height": self.height,
            "width": self.width,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize.value,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PreprocessSpec:
        """The reverse of `to_json`.

        Raises:
            ValueError: a field is missing, unknown, or out of range.
        """
        known = {field.name for field in fields(cls)}
        # Files from before there was a choice say nothing of it.
        value = {"resize": Resize.CENTER_CROP.value, **value}
        if set(value) != known:
            raise ValueError(f"preprocess needs exactly the fields {sorted(known)}, got {sorted(value)}")
        try:
            return cls(
                height=int(value["height"]),
                width=int(value["width"]),
                crop_fraction=float(value["crop_fraction"]),
                interpolation=cast(Interpolation, value["interpolation"]),
                mean=_triple(value["mean"]),
                std=_triple(value["std"]),
                resize=Resize(value["resize"]),
            )
        except TypeError as error:
            raise ValueError(f"preprocess is malformed: {error}") from error


def _triple(values: Sequence[Any]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError("expected three numbers, one per channel")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Class names; a class's index is its position."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or not all(self.names):
            raise ValueError("labels must be non-empty strings")
        if len(set(self.names)) != len(self.names):
            raise ValueError("labels must be unique")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: of the tensor in the graph.
        datatype: Open Inference Protocol name: FP32, FP16, UINT8, INT64, BYTES, ...
        shape: -1 stands for a dynamic axis.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
