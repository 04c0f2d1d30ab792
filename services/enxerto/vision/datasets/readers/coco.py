"""COCO JSON: boxes for detection; polygons and run lengths, drawn together, for segmentation."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from enxerto.vision.archives import legible
from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.json_stream import Elements, JsonStreamError, NotAnObjectError, members
from enxerto.vision.datasets.pictures import DrawnBox, Format, Picture, Reading
from enxerto.vision.datasets.rasters import Region, area_of
from enxerto.vision.datasets.readers.coco_records import (
    ListedAnnotation,
    ListedImage,
    Runs,
    read_annotation,
    read_image,
)
from enxerto.vision.datasets.region_spool import RegionSpool
from enxerto.vision.datasets.tree import PathEscapeError, Tree, split_named, split_of, stem
from enxerto.vision.specs import Split, Task

_MAX_JSON_BYTES: Final = 2 * 2**30
_BLOCK_BYTES: Final = 1 << 20
_LISTS: Final = frozenset({"images", "annotations", "categories"})
_BACKGROUND: Final = "background"


@dataclass(slots=True)
class _Listing:
    """What a file says besides its annotations, which are read again, one at a time, and never all in memory."""

    file: str
    lists: set[str] = field(default_factory=set)
    images: list[ListedImage | Finding] = field(default_factory=list)
    categories: list[tuple[Any, int]] = field(default_factory=list)
    """Each with its line."""


@dataclass(slots=True)
class _Filling:
    """What a file's annotations are read into."""

    file: str
    labels: dict[Any, int]
    positions: dict[Any, int | None] = field(default_factory=dict)
    """Of pictures by their ids; None where the picture cannot be used."""
    pictures: list[Picture] = field(default_factory=list)
    regions: RegionSpool = field(default_factory=RegionSpool)


def _is_coco(tree: Tree, file: str) -> bool:
    path = tree.root / file
    if not 2 < path.stat().st_size <= _MAX_JSON_BYTES:
        return False
    wanted, unwanted = {b'"images"', b'"annotations"', b'"categories"'}, b'"segments_info"'
    with path.open("rb") as opened:
        # Not mapped: the pages of a large file would count as this process's memory.
        tail = b""
        while block := opened.read(_BLOCK_BYTES):
            looked = tail + block
            wanted = {key for key in wanted if key not in looked}
            if unwanted in looked:
                return False
            tail = looked[-len(unwanted) :]
    return not wanted


def _files(tree: Tree) -> list[str]:
    found = [file for file in tree.named(".json") if _is_coco(tree, file)]
    # COCO's own folder has keypoints and captions of the same pictures beside the instances.
    instances = [file for file in found if stem(file).startswith("instances")]
    return instances or found


def _recognise(tree: Tree, _task: Task) -> str | None:
    files = _files(tree)
    return ", ".join(files[:5]) if files else None


class _Reader:
    def __init__(self, tree: Tree, task: Task) -> None:
        self._tree = tree
        self._task = task
        self._findings: list[Finding] = []
        self._pictures: dict[str, Picture] = {}
        self._categories: dict[Any, str] = {}

    def read(self) -> Reading:
        listings = [listing for file in _files(self._tree) if (listing := self._list(file)) is not None]
        for listing in listings:
            self._add_categories(listing.file, listing.categories)
        names = [name for _, name in sorted(self._categories.items(), key=lambda one: (str(type(one[0])), one[0]))]
        class_names = tuple(dict.fromkeys(names))
        if self._task is Task.SEGMENTATION:
            class_names = (_BACKGROUND, *(name for name in class_names if name.lower() != _BACKGROUND))
        labels = {name: label for label, name in enumerate(class_names)}
        by_id = {number: labels.get(name, 0) for number, name in self._categories.items()}
        for listing in listings:
            self._add_pictures(listing, by_id)
        unlisted = [path for path in self._tree.images if path not in self._pictures]
        if unlisted:
            message = f"{len(unlisted)} pictures are in no JSON file and are skipped, such as {unlisted[0]}"
            self._findings.append(warning(".", "UNLISTED_IMAGES", message))
        return Reading(class_names, list(self._pictures.values()), self._findings)

    def _list(self, file: str) -> _Listing | None:
        listing = _Listing(file)
        complete = False
        with self._telling(file):
            for key, value in members(self._tree.root / file):
                if key not in _LISTS:
                    continue
                if key in listing.lists:
                    raise ValueError(f"it has {key} more than once")
                if not isinstance(value, Elements):
                    break
                listing.lists.add(key)
                if key == "images":
                    listing.images.extend(read_image(one, file, value.line) for one in value)
                elif key == "categories":
                    listing.categories.extend((one, value.line) for one in value)
            if listing.lists != _LISTS:
                raise NotAnObjectError
            complete = True
        return listing if complete else None

    @contextmanager
    def _telling(self, file: str) -> Iterator[None]:
        """What is wrong with a whole file becomes a finding."""
        try:
            yield
        except JsonStreamError as problem:
            self._findings.append(error(file, "MALFORMED_FILE", f"is not JSON: {problem}", problem.line))
        except UnicodeDecodeError as problem:
            message = f"cannot be read: is not UTF-8: {problem.reason} at byte {problem.start}"
            self._findings.append(error(file, "MALFORMED_FILE", message))
        except NotAnObjectError:
            message = "needs the lists images, annotations and categories"
            self._findings.append(error(file, "MALFORMED_FILE", message))
        except (ValueError, RecursionError) as problem:
            self._findings.append(error(file, "MALFORMED_FILE", f"cannot be read: {problem}"))

    def _add_categories(self, file: str, categories: list[tuple[Any, int]]) -> None:
        for one, line in categories:
            number, name = (one.get("id"), one.get("name")) if isinstance(one, dict) else (None, None)
            if not isinstance(number, int | str) or not isinstance(name, str) or not name:
                self._findings.append(error(file, "MALFORMED_CATEGORY", f"{one!r:.80} needs an id and a name", line))
            elif name != legible(name):
                # Kept, so that not every annotation of it is told too.
                self._categories[number] = legible(name)
                message = f"category {number} has the name {name!r}, which is not Unicode text"
                self._findings.append(error(file, "MALFORMED_CATEGORY", message, line))
            elif self._categories.setdefault(number, name) != name:
                message = f"category {number} is {name!r} here and {self._categories[number]!r} in another file"
                self._findings.append(error(file, "CONFLICTING_CATEGORY", message, line))

    def _add_pictures(self, listing: _Listing, labels: dict[Any, int]) -> None:
        file = listing.file
        split = split_named(stem(file)) or split_of(file)
        filling = _Filling(file, labels)
        for one in listing.images:
            if isinstance(one, Finding):
                self._findings.append(one)
            elif one.number in filling.positions:
                message = f"image id {one.number} occurs more than once"
                self._findings.append(error(file, "DUPLICATE_IMAGE", message, one.line))
            elif (picture := self._add_picture(file, one, split)) is None:
                filling.positions[one.number] = None
            else:
                filling.positions[one.number] = len(filling.pictures)
                filling.pictures.append(picture)
        listing.images.clear()
        with self._telling(file):
            for key, value in members(self._tree.root / file):
                if key == "annotations":
                    self._add_annotations(value, filling)
        if self._task is Task.SEGMENTATION:
            masks = filling.regions.masks([file] * len(filling.pictures))
            for picture, mask in zip(filling.pictures, masks, strict=True):
                picture.mask, picture.annotated = mask, not mask.empty
        else:
            for picture in filling.pictures:
                picture.annotated = bool(picture.boxes)

    def _add_annotations(self, annotations: Elements, filling: _Filling) -> None:
        """Boxes go to their pictures, regions to the spool."""
        file, missing = filling.file, set[Any]()
        for given in annotations:
            one = read_annotation(given)
            if one is None:
                message = f"{given!r:.80} needs an image_id and a category_id"
                self._findings.append(error(file, "MALFORMED_ANNOTATION", message, annotations.line))
            elif one.image not in filling.positions:
                if one.image not in missing:
                    message = f"annotation {one.number} is of image {one.image}, which is not listed"
                    self._findings.append(error(file, "MISSING_IMAGE", message, annotations.line))
                missing.add(one.image)
            elif (position := filling.positions[one.image]) is not None:
                label = filling.labels.get(one.category)
                if label is None:
                    message = f"annotation {one.number} has the category {one.category}, which is not listed"
                    self._findings.append(error(file, "UNKNOWN_CLASS", message, annotations.line))
                elif self._task is Task.DETECTION:
                    self._add_box(filling.pictures[position], one, label, annotations.line)
                else:
                    self._add_region(filling, position, one, label, annotations.line)

    def _add_picture(self, file: str, one: ListedImage, split: Split | None) -> Picture | None:
        folder = posixpath.dirname(file)
        folders = [folder, ".", posixpath.join(folder, "images"), "images", posixpath.dirname(folder)]
        try:
            path = self._tree.locate(one.name, folders, split)
        except PathEscapeError as escape:
            self._findings.append(error(file, "PATH_ESCAPE", f"image {one.number}: {escape}", one.line))
            return None
        if path is None:
            message = f"there is no picture {one.name!r} (image {one.number})"
            self._findings.append(error(file, "MISSING_IMAGE", message, one.line))
            return None
        if path in self._pictures:
            where = self._pictures[path].origin
            message = f"{path} is listed more than once" + (f", also in {where}" if where != file else "")
            self._findings.append(error(file, "DUPLICATE_IMAGE", message, one.line))
            return None
        picture = Picture(path, split, origin=file, line=one.line, size=one.size)
        self._pictures[path] = picture
        return picture

    def _add_box(self, picture: Picture, annotation: ListedAnnotation, label: int, line: int) -> None:
        box = annotation.box
        if box is None:
            message = f"annotation {annotation.number} of {picture.path} needs a bbox of four numbers"
            self._findings.append(error(picture.origin, "MALFORMED_BOX", message, line))
            return
        left, top, width, height = box
        edges = (left, top, left + width, top + height)
        picture.boxes.append(DrawnBox(label, *edges, crowd=annotation.crowd, line=line))

    def _add_region(self, filling: _Filling, picture: int, annotation: ListedAnnotation, label: int, line: int) -> None:
        shape = annotation.shape
        if not shape:
            message = f"annotation {annotation.number} has no polygon of three points and no run lengths"
            self._findings.append(error(filling.file, "MALFORMED_POLYGON", message, line))
        elif isinstance(shape, Runs):
            area = math.inf
            if not annotation.crowd and annotation.box is not None:
                area = annotation.box[2] * annotation.box[3]
            filling.regions.add(picture, area, Region(label, counts=shape.counts, size=shape.size), line)
        else:
            filling.regions.add(picture, sum(area_of(ring) for ring in shape), Region(label, polygons=shape), line)


def _read(tree: Tree, task: Task) -> Reading:
    return _Reader(tree, task).read()


COCO: Final = Format(
    "COCO",
    frozenset({Task.DETECTION, Task.SEGMENTATION}),
    "COCO JSON with images, annotations and categories",
    _recognise,
    _read,
)
