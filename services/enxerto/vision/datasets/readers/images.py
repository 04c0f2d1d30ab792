"""Pictures alone, for style transfer: the one below `style/` gives the style, all others are content."""

from __future__ import annotations

from typing import Final

from enxerto.vision.datasets.findings import error
from enxerto.vision.datasets.pictures import Format, Picture, Reading
from enxerto.vision.datasets.tree import Tree, split_named
from enxerto.vision.specs import Split, Task

CLASS_NAMES: Final = ("content", "style")
_STYLE: Final = "style"


def _recognise(tree: Tree, task: Task) -> str | None:
    # Every data set has pictures: this format is only ever meant when the task asks for it.
    return f"{len(tree.images)} pictures" if task is Task.STYLE and tree.images else None


def _read(tree: Tree, _task: Task) -> Reading:
    reading = Reading(CLASS_NAMES, optional_files=True, class_paths={"content": ".", "style": _STYLE})
    for path in tree.images:
        parts = path.split("/")
        is_style = _STYLE in (part.lower() for part in parts[:-1])
        given = split_named(parts[0]) if len(parts) > 1 else None
        reading.pictures.append(Picture(path, Split.TRAIN if is_style else given, int(is_style)))
    styles = [picture.path for picture in reading.pictures if picture.label == 1]
    if len(styles) != 1:
        message = f"must hold exactly one picture, the style, and holds {len(styles)}"
        reading.findings.append(error(_STYLE, "STYLE_PICTURE", message))
    return reading


IMAGES: Final = Format(
    "IMAGES",
    frozenset({Task.STYLE}),
    "pictures, one of them in the folder style/",
    _recognise,
    _read,
)
