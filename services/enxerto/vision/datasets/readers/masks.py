"""Pictures with masks: `images/` and `masks/`, `JPEGImages/` and `SegmentationClass/`, or `x.jpg` and `x_mask.png`."""

from __future__ import annotations

import csv
import posixpath
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.pictures import Format, Picture, Reading
from enxerto.vision.datasets.rasters import IGNORED, FileMask, read_values
from enxerto.vision.datasets.readers.mask_pairs import pair_masks
from enxerto.vision.datasets.readers.voc import read_sets
from enxerto.vision.datasets.scans import MaskError
from enxerto.vision.datasets.tree import Tree, split_of
from enxerto.vision.specs import Task

_NAME_FILES: Final = ("classes.txt", "labels.txt", "class_names.txt", "label_names.txt", "labelmap.txt")
_COLOUR_TABLE: Final = "class_dict.csv"
_LOOKED_AT: Final = 50
_VOC_NAMES: Final = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(slots=True)
class _Names:
    """Class names, and colours where a file has them."""

    names: tuple[str, ...] = ()
    colours: dict[tuple[int, int, int], int] = field(default_factory=dict)


def _recognise(tree: Tree, _task: Task) -> str | None:
    found = pair_masks(tree)
    if found.masks:
        picture, mask = next(iter(found.masks.items()))
        return f"{len(found.masks)} pictures with masks, such as {picture} and {mask}"
    return found.findings[0].message if found.findings else None


def _read(tree: Tree, _task: Task) -> Reading:
    paired = pair_masks(tree)
    pairs, bare, findings = paired.masks, paired.bare, paired.findings
    known = _names(tree, findings)
    binary = not known.colours and len(known.names) in (0, 2) and _are_binary(tree, list(pairs.values()))
    if binary and not known.names:
        known = _Names(("background", "foreground"))
    sets = read_sets(tree, "Segmentation")
    if sets:
        bare = [path for path in bare if sets.of(path) is not None]
    classes = len(known.names) or None
    reading = Reading(known.names, findings=findings)
    for path, mask in pairs.items():
        if sets and sets.of(path) is None:
            continue
        source = FileMask(tree.root, mask, classes, known.colours, binary)
        reading.pictures.append(Picture(path, sets.of(path) or split_of(path), mask=source, origin=mask))
    findings.extend(error(mask, "MISSING_IMAGE", "is a mask without a picture") for mask in paired.lonely)
    for path in bare:
        # Without a mask nothing is known of a single pixel, not even that it is background.
        findings.append(warning(path, "IMAGE_WITHOUT_ANNOTATION", "has no mask and is skipped"))
    return reading


def _are_binary(tree: Tree, masks: list[str]) -> bool:
    """Whether the masks are black and white: 255 is a class then, not ignored."""
    step = max(1, len(masks) // _LOOKED_AT)
    white = False
    for mask in masks[::step]:
        try:
            values = np.unique(read_values(tree.root / mask))
        except MaskError:
            # The examination names it.
            continue
        if not set(values.tolist()) <= {0, IGNORED}:
            return False
        white = white or IGNORED in values
    return white


def _names(tree: Tree, findings: list[Finding]) -> _Names:
    by_name = {posixpath.basename(path).lower(): path for path in reversed(tree.files)}
    if _COLOUR_TABLE in by_name:
        return _from_table(tree, by_name[_COLOUR_TABLE], findings)
    file = next((by_name[name] for name in _NAME_FILES if name in by_name), None)
    if file is None:
        is_voc = any("segmentationclass" in path.lower() for path in tree.folders)
        return _Names(_VOC_NAMES if is_voc else ())
    found = _Names()
    names: list[str] = []
    for number, line in enumerate(tree.read_text(file).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        # CVAT writes name:red,green,blue:parts:actions.
        name, _, rest = line.strip().partition(":")
        colour = rest.partition(":")[0]
        if colour and not _add_colour(found, colour.split(","), len(names)):
            findings.append(error(file, "MALFORMED_ROW", f"{colour!r} is not a colour", number))
        names.append(name)
    found.names = tuple(names)
    _refuse_twins(found, file, findings)
    return found


def _from_table(tree: Tree, file: str, findings: list[Finding]) -> _Names:
    found = _Names()
    names: list[str] = []
    for number, row in enumerate(_table(tree, file, findings), start=1):
        if len(row) < 4 or not row[1].strip().isdecimal():
            if number > 1 and row:
                findings.append(error(file, "MALFORMED_ROW", "must be name,r,g,b", number))
            continue
        if not _add_colour(found, row[1:4], len(names)):
            findings.append(error(file, "MALFORMED_ROW", f"{row[1:4]} is not a colour", number))
        names.append(row[0].strip())
    found.names = tuple(names)
    _refuse_twins(found, file, findings)
    return found


def _table(tree: Tree, file: str, findings: list[Finding]) -> list[list[str]]:
    try:
        return list(csv.reader(tree.read_text(file).splitlines()))
    except csv.Error as problem:
        findings.append(error(file, "MALFORMED_FILE", f"cannot be read: {problem}"))
        return []


def _add_colour(found: _Names, parts: list[str], label: int) -> bool:
    values = [int(part) for part in parts if part.strip().isdecimal() and len(part.strip()) <= 3]
    if len(values) != 3 or max(values) > 255:
        return False
    found.colours[values[0], values[1], values[2]] = label
    return True


def _refuse_twins(found: _Names, file: str, findings: list[Finding]) -> None:
    if len(set(found.names)) != len(found.names) or len(found.names) > IGNORED:
        findings.append(error(file, "DUPLICATE_CLASS", f"must have at most {IGNORED} names, each once"))


MASKS: Final = Format(
    "MASKS",
    frozenset({Task.SEGMENTATION}),
    "pictures and mask PNGs (images/ and masks/, JPEGImages/ and SegmentationClass/, or x.jpg and x_mask.png)",
    _recognise,
    _read,
)
