"""COCO JSON: boxes for detection; polygons and run lengths, drawn together, for segmentation."""

from __future__ import annotations

import json
import math
import mmap
import posixpath
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.pictures import DrawnBox, Format, Picture, Reading
from enxerto.vision.datasets.rasters import Region, RegionMask
from enxerto.vision.datasets.tree import PathEscapeError, Tree, split_named, split_of, stem
from enxerto.vision.specs import Split, Task

_MAX_JSON_BYTES: Final = 2 * 2**30
_BACKGROUND: Final = "background"


_Ring = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Run lengths as they are written."""

    counts: tuple[int, ...] | bytes
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Annotation:
    """One object, as small as it gets: a file has a million of them."""

    number: Any
    image: Any
    category: Any
    box: tuple[float, float, float, float] | None
    crowd: bool
    shape: tuple[_Ring, ...] | _Runs | None


def _is_coco(tree: Tree, file: str) -> bool:
    path = tree.root / file
    if not 2 < path.stat().st_size <= _MAX_JSON_BYTES:
        return False
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        wanted = (b'"images"', b'"annotations"', b'"categories"')
        return all(content.find(key) >= 0 for key in wanted) and content.find(b'"segments_info"') < 0


def _files(tree: Tree) -> list[str]:
    found = [file for file in tree.named(".json") if _is_coco(tree, file)]
    # COCO's own folder has keypoints and captions of the same pictures beside the instances.
    instances = [file for file in found if stem(file).startswith("instances")]
    return instances or found


def _recognise(tree: Tree, _task: Task) -> str | None:
    files = _files(tree)
    return ", ".join(files[:5]) if files else None


def _compact(value: dict[str, Any]) -> Any:
    """Make an annotation small as soon as it is parsed; everything else stays as it is."""
    if not _is_id(value.get("image_id")) or not _is_id(value.get("category_id")):
        return value
    return _Annotation(
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


def _shape(given: Any) -> tuple[_Ring, ...] | _Runs | None:
    try:
        if isinstance(given, list) and given:
            rings = tuple(np.asarray(ring, dtype=np.float64) for ring in given)
            return rings if all(ring.ndim == 1 and ring.size >= 6 and ring.size % 2 == 0 for ring in rings) else None
        if isinstance(given, dict):
            height, width = (int(side) for side in given["size"])
            counts = given["counts"]
            runs = counts.encode("ascii") if isinstance(counts, str) else tuple(int(run) for run in counts)
            return _Runs(runs, (height, width))
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return None


class _Reader:
    def __init__(self, tree: Tree, task: Task) -> None:
        self._tree = tree
        self._task = task
        self._findings: list[Finding] = []
        self._pictures: dict[str, Picture] = {}
        self._categories: dict[Any, str] = {}

    def read(self) -> Reading:
        contents = [(file, content) for file in _files(self._tree) if (content := self._parse(file)) is not None]
        for file, content in contents:
            self._add_categories(file, content["categories"])
        names = [name for _, name in sorted(self._categories.items(), key=lambda one: (str(type(one[0])), one[0]))]
        class_names = tuple(dict.fromkeys(names))
        if self._task is Task.SEGMENTATION:
            class_names = (_BACKGROUND, *(name for name in class_names if name.lower() != _BACKGROUND))
        labels = {name: label for label, name in enumerate(class_names)}
        by_id = {number: labels.get(name, 0) for number, name in self._categories.items()}
        for file, content in contents:
            self._add_pictures(file, content, by_id)
        unlisted = [path for path in self._tree.images if path not in self._pictures]
        if unlisted:
            message = f"{len(unlisted)} pictures are in no JSON file and are skipped, such as {unlisted[0]}"
            self._findings.append(warning(".", "UNLISTED_IMAGES", message))
        return Reading(class_names, list(self._pictures.values()), self._findings)

    def _parse(self, file: str) -> dict[str, Any] | None:
        try:
            text = self._tree.read_text(file, _MAX_JSON_BYTES)
            content = json.loads(text, object_hook=_compact)
        except json.JSONDecodeError as problem:
            self._findings.append(error(file, "MALFORMED_FILE", f"is not JSON: {problem.msg}", problem.lineno))
            return None
        except (ValueError, RecursionError) as problem:
            self._findings.append(error(file, "MALFORMED_FILE", f"cannot be read: {problem}"))
            return None
        parts = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
            message = "needs the lists images, annotations and categories"
            self._findings.append(error(file, "MALFORMED_FILE", message))
            return None
        return content

    def _add_categories(self, file: str, categories: list[Any]) -> None:
        for one in categories:
            number, name = (one.get("id"), one.get("name")) if isinstance(one, dict) else (None, None)
            if not isinstance(number, int | str) or not isinstance(name, str) or not name:
                self._findings.append(error(file, "MALFORMED_CATEGORY", f"{one!r:.80} needs an id and a name"))
            elif self._categories.setdefault(number, name) != name:
                message = f"category {number} is {name!r} here and {self._categories[number]!r} in another file"
                self._findings.append(error(file, "CONFLICTING_CATEGORY", message))

    def _add_pictures(self, file: str, content: dict[str, Any], labels: dict[Any, int]) -> None:
        split = split_named(stem(file)) or split_of(file)
        known: dict[Any, Picture | None] = {}
        for one in content["images"]:
            if not isinstance(one, dict) or not _is_id(one.get("id")) or not isinstance(one.get("file_name"), str):
                self._findings.append(error(file, "MALFORMED_IMAGE", f"{one!r:.80} needs an id and a file_name"))
                continue
            if one["id"] in known:
                self._findings.append(error(file, "DUPLICATE_IMAGE", f"image id {one['id']} occurs more than once"))
                continue
            known[one["id"]] = self._add_picture(file, one, split)
        regions = self._add_annotations(file, content["annotations"], known, labels)
        for number, found in known.items():
            if found is None:
                continue
            if self._task is Task.SEGMENTATION:
                # Large objects first, so that a small one before a large one stays visible.
                drawn = sorted(regions.get(number, []), key=lambda one: -one[0])
                found.mask = RegionMask(file, tuple(region for _, region in drawn))
                found.annotated = bool(drawn)
            else:
                found.annotated = bool(found.boxes)

    def _add_annotations(
        self, file: str, annotations: list[Any], known: dict[Any, Picture | None], labels: dict[Any, int]
    ) -> dict[Any, list[tuple[float, Region]]]:
        """Boxes go to their pictures; regions are returned by image id, each with its area."""
        regions: dict[Any, list[tuple[float, Region]]] = {}
        missing: set[Any] = set()
        for one in annotations:
            if not isinstance(one, _Annotation):
                message = f"{one!r:.80} needs an image_id and a category_id"
                self._findings.append(error(file, "MALFORMED_ANNOTATION", message))
            elif one.image not in known:
                if one.image not in missing:
                    message = f"annotation {one.number} is of image {one.image}, which is not listed"
                    self._findings.append(error(file, "MISSING_IMAGE", message))
                missing.add(one.image)
            elif (picture := known[one.image]) is not None:
                label = labels.get(one.category)
                if label is None:
                    message = f"annotation {one.number} has the category {one.category}, which is not listed"
                    self._findings.append(error(file, "UNKNOWN_CLASS", message))
                elif self._task is Task.DETECTION:
                    self._add_box(file, picture, one, label)
                else:
                    self._add_region(file, one, label, regions)
        return regions

    def _add_picture(self, file: str, one: dict[str, Any], split: Split | None) -> Picture | None:
        folder, name = posixpath.dirname(file), one["file_name"]
        folders = [folder, ".", posixpath.join(folder, "images"), "images", posixpath.dirname(folder)]
        try:
            path = self._tree.locate(name, folders, split)
        except PathEscapeError as escape:
            self._findings.append(error(file, "PATH_ESCAPE", f"image {one['id']}: {escape}"))
            return None
        if path is None:
            self._findings.append(error(file, "MISSING_IMAGE", f"there is no picture {name!r} (image {one['id']})"))
            return None
        if path in self._pictures:
            where = self._pictures[path].origin
            message = f"{path} is listed more than once" + (f", also in {where}" if where != file else "")
            self._findings.append(error(file, "DUPLICATE_IMAGE", message))
            return None
        sides = (one.get("width"), one.get("height"))
        size = (sides[0], sides[1]) if isinstance(sides[0], int) and isinstance(sides[1], int) else None
        picture = Picture(path, split, origin=file, size=size)
        self._pictures[path] = picture
        return picture

    def _add_box(self, file: str, picture: Picture, annotation: _Annotation, label: int) -> None:
        box = annotation.box
        if box is None:
            message = f"annotation {annotation.number} of {picture.path} needs a bbox of four numbers"
            self._findings.append(error(file, "MALFORMED_BOX", message))
            return
        left, top, width, height = box
        picture.boxes.append(DrawnBox(label, left, top, left + width, top + height, crowd=annotation.crowd))

    def _add_region(
        self, file: str, annotation: _Annotation, label: int, regions: dict[Any, list[tuple[float, Region]]]
    ) -> None:
        shape = annotation.shape
        if not shape:
            message = f"annotation {annotation.number} has no polygon of three points and no run lengths"
            self._findings.append(error(file, "MALFORMED_POLYGON", message))
            return
        if isinstance(shape, _Runs):
            area, region = math.inf, Region(label, counts=shape.counts, size=shape.size)
            if not annotation.crowd and annotation.box is not None:
                area = annotation.box[2] * annotation.box[3]
        else:
            area = sum(_area(ring) for ring in shape)
            region = Region(label, polygons=shape)
        regions.setdefault(annotation.image, []).append((area, region))


def _area(ring: _Ring) -> float:
    x, y = ring[0::2], ring[1::2]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _read(tree: Tree, task: Task) -> Reading:
    return _Reader(tree, task).read()


COCO: Final = Format(
    "COCO",
    frozenset({Task.DETECTION, Task.SEGMENTATION}),
    "COCO JSON with images, annotations and categories",
    _recognise,
    _read,
)
