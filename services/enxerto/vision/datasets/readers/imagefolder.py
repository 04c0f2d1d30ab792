"""Class folders: `class/**/image`, or `train|val|test/class/**/image`, whose splits are kept."""

from __future__ import annotations

import posixpath
from typing import Final

from enxerto.vision.datasets.findings import error, warning
from enxerto.vision.datasets.pictures import Format, Picture, Reading
from enxerto.vision.datasets.tree import Tree, split_named, suffix
from enxerto.vision.specs import Split, Task

_ROLES: Final = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "masks", "mask", "labels", "annotations", "segmentationclass"}
)
_ANNOTATIONS: Final = (".json", ".yaml", ".yml", ".xml", ".txt", ".csv")


def _recognise(tree: Tree, _task: Task) -> str | None:
    named = sorted(name for name in _classes(tree) if name.lower() not in _ROLES)
    filled = [path.split("/") for path in tree.files if suffix(path) not in _ANNOTATIONS]
    position = 1 if _has_splits(tree) else 0
    holding = {parts[position] for parts in filled if len(parts) > position + 1}
    used = [name for name in named if name in holding]
    if not used:
        return None
    return f"class folders {', '.join(used[:5])}{', ...' if len(used) > 5 else ''}"


def _has_splits(tree: Tree) -> bool:
    outer = tree.children(".")
    splits = [split_named(folder) for folder in outer]
    return len(outer) > 1 and Split.TRAIN in splits and None not in splits


def _classes(tree: Tree) -> dict[str, list[tuple[Split | None, str]]]:
    """Class names to their folders and the splits of those."""
    found: dict[str, list[tuple[Split | None, str]]] = {}
    outer = [(None, ".")]
    if _has_splits(tree):
        outer = [(split_named(folder), folder) for folder in tree.children(".")]  # type: ignore[misc]
    for split, parent in outer:
        for folder in tree.children(parent):
            found.setdefault(posixpath.basename(folder), []).append((split, folder))
    return found


def _read(tree: Tree, _task: Task) -> Reading:
    classes = _classes(tree)
    names = tuple(sorted(classes))
    # Of several folders of a class, the training one is named in findings.
    paths = {
        name: min(folders, key=lambda one: (one[0] is not Split.TRAIN, one[1]))[1] for name, folders in classes.items()
    }
    reading = Reading(names, class_paths=paths, optional_files=True)
    inside = {folder: (label, split) for label, name in enumerate(names) for split, folder in classes[name]}
    depth = 2 if _has_splits(tree) else 1
    for path in tree.files:
        known = inside.get("/".join(path.split("/")[:depth]))
        if known is None or path.count("/") < depth:
            message = "lies outside the class folders and is skipped"
            reading.findings.append(warning(path, "STRAY_FILE", message))
        else:
            reading.pictures.append(Picture(path, known[1], known[0]))
    listed = {picture.label for picture in reading.pictures}
    for label, name in enumerate(names):
        if label not in listed:
            reading.findings.append(error(paths[name], "EMPTY_CLASS", "holds no images"))
    return reading


IMAGE_FOLDER: Final = Format(
    "IMAGE_FOLDER",
    frozenset({Task.CLASSIFICATION}),
    "class folders (class/*.jpg, or train|val|test/class/*.jpg)",
    _recognise,
    _read,
)
