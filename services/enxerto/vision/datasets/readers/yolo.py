"""YOLO: `data.yaml`, and beside each picture's folder `images` a folder `labels` with a text file of its name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import yaml

from enxerto.vision.archives import legible
from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.pictures import DrawnBox, Format, Picture, Reading
from enxerto.vision.datasets.rasters import Region, area_of
from enxerto.vision.datasets.region_spool import RegionSpool
from enxerto.vision.datasets.tree import PathEscapeError, Tree, split_named, split_of
from enxerto.vision.specs import Split, Task

_MAX_YAML_BYTES: Final = 2**20
_KEYS: Final = {"train": Split.TRAIN, "val": Split.VAL, "valid": Split.VAL, "test": Split.TEST}
_BACKGROUND: Final = "background"
_POLYGON_VALUES: Final = 6

_Row = tuple[int, list[float], int]
"""Label, numbers and line of one object."""


@dataclass(slots=True)
class _Layout:
    """What data.yaml says."""

    file: str
    names: dict[int, str] = field(default_factory=dict)
    places: list[tuple[Split, str]] = field(default_factory=list)
    base: str = ""


class _Loader(yaml.SafeLoader):
    """Plain values only, and no aliases: a short file of merged ones becomes an endless dictionary."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has aliases")
        return super().compose_node(parent, index)


def _yaml(tree: Tree, file: str) -> Any:
    """The content, or None when it is not YAML."""
    try:
        # A SafeLoader with less: it makes no objects.
        return yaml.load(tree.read_text(file, _MAX_YAML_BYTES), _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _config(tree: Tree) -> str | None:
    for file in tree.named(".yaml", ".yml"):
        content = _yaml(tree, file)
        if isinstance(content, dict) and "names" in content:
            return file
    return None


def _name_list(tree: Tree) -> str | None:
    """A list of names stands in for data.yaml when there are label files."""
    labelled = any(posixpath.basename(posixpath.dirname(path)) == "labels" for path in tree.named(".txt")) or any(
        "/labels/" in f"/{path}" for path in tree.named(".txt")
    )
    wanted = ("classes.txt", "obj.names", "classes.names")
    return next((path for path in tree.files if posixpath.basename(path) in wanted), None) if labelled else None


def _recognise(tree: Tree, _task: Task) -> str | None:
    return _config(tree) or _name_list(tree)


def _layout(tree: Tree, findings: list[Finding]) -> _Layout:
    file = _config(tree)
    if file is None:
        listed = _name_list(tree) or ""
        names = [line.strip() for line in tree.read_text(listed, _MAX_YAML_BYTES).splitlines() if line.strip()]
        return _Layout(listed, dict(enumerate(names)))
    content = _yaml(tree, file)
    layout = _Layout(file)
    names = content["names"]
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    for number, name in pairs:
        if not (isinstance(number, int) and number >= 0 and isinstance(name, str | int) and str(name)):
            findings.append(error(file, "MALFORMED_FILE", "names has an entry that is not a number and a name"))
            continue
        layout.names[number] = legible(str(name))
        if layout.names[number] != str(name):
            message = f"names has {name!r}, which is not Unicode text"
            findings.append(error(file, "MALFORMED_FILE", message))
    if not layout.names:
        findings.append(error(file, "MALFORMED_FILE", "names must be a list or a dictionary of class names"))
    layout.base = content["path"] if isinstance(content.get("path"), str) else ""
    for key, split in _KEYS.items():
        given = content.get(key)
        for place in given if isinstance(given, list) else [given]:
            if isinstance(place, str) and place:
                layout.places.append((split, place))
    return layout


def _images(tree: Tree, layout: _Layout, findings: list[Finding]) -> dict[str, tuple[Split | None, int]]:
    """Pictures with their splits and the line that lists them."""
    found: dict[str, tuple[Split | None, int]] = {}
    if not layout.places:
        return {path: (split_of(path), 0) for path in tree.images}
    for split, place in layout.places:
        target = _place(tree, layout, place)
        if target is None:
            code = "PATH_ESCAPE" if _leaves(place) else "MISSING_FOLDER"
            message = f"{split.value.lower()}: there is no folder or list {place!r} in the data set"
            # A test split that was not shipped is usual; without training pictures there is no data set.
            find = error if split is Split.TRAIN or code == "PATH_ESCAPE" else warning
            findings.append(find(layout.file, code, message))
            continue
        listed = _listed(tree, target, findings) if tree.has(target) else ((path, 0) for path in tree.below(target))
        images = set(tree.images)
        for path, line in listed:
            if path in images and path not in found:
                found[path] = (split, line)
            elif path in found and found[path][0] is not split:
                message = f"{path} is in {found[path][0]} and in {split}"
                findings.append(error(layout.file, "CONFLICTING_SPLIT", message))
    return found


def _leaves(place: str) -> bool:
    return place.startswith("/") or posixpath.normpath(place).startswith("..")


def _place(tree: Tree, layout: _Layout, place: str) -> str | None:
    """The folder or list of a split, wherever the exporter meant `path` to be."""
    folders = set(tree.folders) | {"."}
    cleaned = place.replace("\\", "/")
    # Exports are written for a folder of their own: `../train/images` is `train/images` here, as Ultralytics reads it.
    shorter = cleaned
    while shorter.startswith("../"):
        shorter = shorter[3:]
    folder = posixpath.dirname(layout.file)
    for base in (posixpath.join(folder, layout.base), folder, "."):
        for one in (cleaned, shorter):
            path = posixpath.normpath(posixpath.join(base, one))
            if path in folders or tree.has(path):
                return path
    return None


def _listed(tree: Tree, file: str, findings: list[Finding]) -> Iterable[tuple[str, int]]:
    for number, line in enumerate(tree.read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            path = tree.locate(line, (posixpath.dirname(file), "."))
        except PathEscapeError as escape:
            findings.append(error(file, "PATH_ESCAPE", str(escape), number))
            continue
        if path is None:
            findings.append(error(file, "MISSING_IMAGE", f"there is no picture {line.strip()!r}", number))
        else:
            yield path, number


def _label_file(path: str) -> str:
    """Where a picture's labels are: `images` becomes `labels` in its path, the extension `.txt`."""
    parts = posixpath.splitext(path)[0].split("/")
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].lower() == "images":
            parts[position] = "labels"
            break
    return "/".join(parts) + ".txt"


def _read(tree: Tree, task: Task) -> Reading:
    findings: list[Finding] = []
    layout = _layout(tree, findings)
    names = [layout.names[number] for number in sorted(layout.names)]
    offset = 0
    if task is Task.SEGMENTATION:
        offset = 0 if names and names[0].lower() == _BACKGROUND else 1
        names = [_BACKGROUND] * offset + names
    labels = {number: position + offset for position, number in enumerate(sorted(layout.names))}
    reading = Reading(tuple(dict.fromkeys(names)), findings=findings)
    if len(reading.class_names) != len(names):
        findings.append(error(layout.file, "DUPLICATE_CLASS", "names has a class more than once"))
    used: dict[str, str] = {}
    regions = RegionSpool()
    for path, (split, _) in _images(tree, layout, findings).items():
        file = next((one for one in (_label_file(path), posixpath.splitext(path)[0] + ".txt") if tree.has(one)), "")
        picture = Picture(path, split, origin=file)
        if file:
            if file in used:
                message = f"is of {used[file]} and of {path}, which differ in their extensions only"
                findings.append(error(file, "DUPLICATE_IMAGE", message))
            used[file] = path
            rows = _rows(tree, file, labels, findings)
            if task is Task.SEGMENTATION:
                _add_regions(rows, regions, len(reading.pictures), file, findings)
            else:
                picture.boxes = [_box(*row) for row in rows]
        picture.annotated = bool(picture.boxes)
        reading.pictures.append(picture)
    if task is Task.SEGMENTATION:
        masks = regions.masks([picture.origin or picture.path for picture in reading.pictures])
        for picture, mask in zip(reading.pictures, masks, strict=True):
            picture.mask, picture.annotated = mask, not mask.empty
    for file in tree.named(".txt"):
        if "labels" in file.split("/")[:-1] and file not in used and not split_named(file.split("/")[-1]):
            findings.append(error(file, "MISSING_IMAGE", "there is no picture of this name"))
    return reading


def _add_regions(rows: Iterable[_Row], regions: RegionSpool, picture: int, file: str, findings: list[Finding]) -> None:
    for label, values, line in rows:
        if len(values) < _POLYGON_VALUES:
            findings.append(error(file, "NOT_A_POLYGON", "is a box; segmentation needs polygons", line))
        else:
            ring = np.asarray(values, dtype=np.float64)
            regions.add(picture, area_of(ring), Region(label, (ring,), relative=True), line)


def _rows(tree: Tree, file: str, labels: dict[int, int], findings: list[Finding]) -> Iterator[_Row]:
    """Each object: four or five numbers of a box, or those of a polygon's points."""
    try:
        lines = tree.read_text(file).splitlines()
    except ValueError as problem:
        findings.append(error(file, "MALFORMED_FILE", f"cannot be read: {problem}"))
        return
    for number, line in enumerate(lines, start=1):
        tokens = line.split()
        if not tokens:
            continue
        values = _numbers(tokens)
        if values is None or (len(values) not in (5, 6) and (len(values) <= _POLYGON_VALUES or len(values) % 2 == 0)):
            message = "must be a class with x y width height, or with three or more points x y"
            findings.append(error(file, "MALFORMED_ROW", message, number))
            continue
        label = labels.get(int(values[0])) if values[0].is_integer() else None
        if label is None:
            findings.append(error(file, "UNKNOWN_CLASS", f"class {tokens[0]} is not in the list of names", number))
        else:
            yield label, values[1:], number


def _numbers(tokens: list[str]) -> list[float] | None:
    try:
        return [float(token) for token in tokens]
    except ValueError:
        return None


def _box(label: int, values: list[float], line: int) -> DrawnBox:
    if len(values) >= _POLYGON_VALUES:
        return DrawnBox(
            label, min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2]), relative=True, line=line
        )
    # A sixth number is the confidence of whoever predicted the labels.
    x, y, width, height = values[:4]
    left, top = x - width / 2, y - height / 2
    return DrawnBox(label, left, top, left + width, top + height, relative=True, line=line)


YOLO: Final = Format(
    "YOLO",
    frozenset({Task.DETECTION, Task.SEGMENTATION}),
    "YOLO's data.yaml with names, and labels/*.txt beside images/",
    _recognise,
    _read,
)
