"""What the pictures of a data set and their annotations look like. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enxerto.vision.specs import Split


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often a class occurs.

    Attributes:
        class_name: the class.
        splits: annotations in each split, in the splits' order; segmentation counts pictures that hold the class.
    """

    class_name: str
    splits: tuple[int, int, int]

    def count(self, split: Split) -> int:
        """Annotations of one split."""
        return self.splits[list(Split).index(split)]

    @property
    def total(self) -> int:
        """Annotations of all splits."""
        return sum(self.splits)


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Pictures, or boxes, whose side is at most so many pixels and more than the bin before."""

    max_side: int
    count: int


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """What the pictures and their annotations look like.

    Attributes:
        format: IMAGE_FOLDER, CSV, COCO, YOLO, VOC, MASKS or IMAGES.
        image_count: pictures.
        annotation_count: labels, boxes or masks.
        classes: in label order.
        sizes: by the longer side: bins of 64, 128, 256, ... pixels that hold a picture, in order.
        box_sizes: by `Box.side`: bins of 8, 16, 32, ... pixels that hold a box, in order; of DETECTION.
    """

    format: str
    image_count: int
    annotation_count: int
    classes: tuple[ClassCount, ...]
    sizes: tuple[SizeBin, ...]
    box_sizes: tuple[SizeBin, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": self.format,
            "image_count": self.image_count,
            "annotation_count": self.annotation_count,
            "classes": [{"class_name": one.class_name, "splits": list(one.splits)} for one in self.classes],
            "sizes": [{"max_side": one.max_side, "count": one.count} for one in self.sizes],
            "box_sizes": [{"max_side": one.max_side, "count": one.count} for one in self.box_sizes],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetStatistics:
        """The reverse of `to_json`; raises KeyError, TypeError or ValueError."""
        classes = []
        for one in value["classes"]:
            train, val, test = (int(count) for count in one["splits"])
            classes.append(ClassCount(str(one["class_name"]), (train, val, test)))
        return cls(
            format=str(value["format"]),
            image_count=int(value["image_count"]),
            annotation_count=int(value["annotation_count"]),
            classes=tuple(classes),
            sizes=_bins(value["sizes"]),
            # Data that was imported before boxes were measured has none.
            box_sizes=_bins(value.get("box_sizes", ())),
        )


@dataclass(frozen=True, slots=True)
class Occurrences:
    """What one picture adds to the statistics.

    Attributes:
        split: what it is used for.
        labels: of each of its annotations; for a mask, each class in it once.
        annotations: how many annotations it has.
        longer_side: in pixels.
        box_sides: `Box.side` of its boxes.
    """

    split: Split
    labels: tuple[int, ...]
    annotations: int
    longer_side: int
    box_sides: tuple[float, ...] = ()


def summarise(kind: str, class_names: Sequence[str], pictures: Iterable[Occurrences]) -> DatasetStatistics:
    """Count over all pictures."""
    splits = list(Split)
    classes = [[0, 0, 0] for _ in class_names]
    sizes: Counter[int] = Counter()
    box_sizes: Counter[int] = Counter()
    images = annotations = 0
    for picture in pictures:
        images += 1
        annotations += picture.annotations
        sizes[_bin(picture.longer_side, 64)] += 1
        box_sizes.update(_bin(side, 8) for side in picture.box_sides)
        position = splits.index(picture.split)
        for label in picture.labels:
            classes[label][position] += 1
    return DatasetStatistics(
        kind,
        images,
        annotations,
        tuple(ClassCount(name, (row[0], row[1], row[2])) for name, row in zip(class_names, classes, strict=True)),
        tuple(SizeBin(side, sizes[side]) for side in sorted(sizes)),
        tuple(SizeBin(side, box_sizes[side]) for side in sorted(box_sizes)),
    )


def _bin(side: float, smallest: int) -> int:
    return max(smallest, 1 << (math.ceil(side) - 1).bit_length())


def _bins(values: Iterable[Mapping[str, Any]]) -> tuple[SizeBin, ...]:
    return tuple(SizeBin(int(one["max_side"]), int(one["count"])) for one in values)
