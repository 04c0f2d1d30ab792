"""Which format a folder is in: found by looking, never by a flag."""

from __future__ import annotations

from typing import Final

from enxerto.vision.datasets.findings import Finding, error
from enxerto.vision.datasets.pictures import Format
from enxerto.vision.datasets.readers.coco import COCO
from enxerto.vision.datasets.readers.imagefolder import IMAGE_FOLDER
from enxerto.vision.datasets.readers.images import IMAGES
from enxerto.vision.datasets.readers.masks import MASKS
from enxerto.vision.datasets.readers.tables import CSV
from enxerto.vision.datasets.readers.voc import VOC
from enxerto.vision.datasets.readers.yolo import YOLO
from enxerto.vision.datasets.tree import Tree
from enxerto.vision.specs import Task

FORMATS: Final = (CSV, COCO, YOLO, VOC, MASKS, IMAGES, IMAGE_FOLDER)


def find_format(tree: Tree, task: Task) -> Format | Finding:
    """The one format that the folder is in and the task can be read from, or why there is none."""
    found = [(one, what) for one in FORMATS if (what := one.recognise(tree, task)) is not None]
    # Any annotated data set has folders of pictures, and they are only classes when nothing else is there.
    if any(one not in (IMAGE_FOLDER, CSV) for one, _ in found):
        found = [(one, what) for one, what in found if one is not IMAGE_FOLDER]
    fitting = [(one, what) for one, what in found if task in one.tasks]
    if len(fitting) == 1:
        return fitting[0][0]
    described = "; ".join(f"{one.kind} ({what})" for one, what in fitting or found)
    if fitting:
        message = f"several formats fit {task.value}, leave one of them: {described}"
        return error(".", "AMBIGUOUS_FORMAT", message)
    sought = "; ".join(one.sought for one in FORMATS if task in one.tasks)
    seen = described or f"{len(tree.images)} pictures among {len(tree.files)} files"
    return error(".", "UNKNOWN_FORMAT", f"for {task.value} this looks for {sought}; found {seen}")
