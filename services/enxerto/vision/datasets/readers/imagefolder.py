"""Class folders: `class/**/image`, or `train|val|test/class/**/image`, whose splits are kept."""

from __future__ import annotations

from collections import Counter
from typing import Final

from enxerto.vision.datasets.findings import error, warning
from enxerto.vision.datasets.pictures import Format, Picture, Reading
from enxerto.vision.datasets.readers.class_layout import ancestry, class_layout
from enxerto.vision.datasets.tree import Tree
from enxerto.vision.specs import Split, Task

_ROLES: Final = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "masks", "mask", "labels", "annotations", "segmentationclass"}
)


def _recognise(tree: Tree, _task: Task) -> str | None:
    used = [name for name in class_layout(tree).filled if name.lower() not in _ROLES]
    if not used:
        return None
    return f"class folders {', '.join(used[:5])}{', ...' if len(used) > 5 else ''}"


def _read(tree: Tree, _task: Task) -> Reading:
    layout = class_layout(tree)
    names = tuple(sorted(layout.classes))
    # Of several folders of a class, the training one is named in findings.
    paths = {
        name: min(folders, key=lambda one: (one[0] is not Split.TRAIN, one[1]))[1]
        for name, folders in layout.classes.items()
    }
    reading = Reading(names, class_paths=paths, optional_files=True)
    if layout.doubt:
        reading.findings.append(error(".", "AMBIGUOUS_SPLITS", layout.doubt))
    inside = {folder: (label, split) for label, name in enumerate(names) for split, folder in layout.classes[name]}
    skipped: Counter[str] = Counter()
    for path in tree.files:
        known = next((inside[above] for above in ancestry(path)[:-1] if above in inside), None)
        outer = path.partition("/")[0]
        if known is not None:
            reading.pictures.append(Picture(path, known[1], known[0]))
        elif outer in layout.left_out:
            skipped[outer] += 1
        else:
            message = "lies outside the class folders and is skipped"
            reading.findings.append(warning(path, "STRAY_FILE", message))
    for folder, count in skipped.items():
        message = f"{layout.left_out[folder]} and is left out, with {count} files"
        reading.findings.append(warning(folder, "STRAY_FOLDER", message))
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
