"""Which format a folder is in: found by looking, never by a flag."""

from __future__ import annotations

from typing import Final

from enxerto.vision.datasets.findings import Finding, error
from enxerto.vision.datasets.pictures import Format
from enxerto.vision.datasets.readers.class_layout import class_layout
from enxerto.vision.datasets.readers.coco import COCO
from enxerto.vision.datasets.readers.imagefolder import IMAGE_FOLDER
from enxerto.vision.datasets.readers.images import IMAGES
from enxerto.vision.datasets.readers.masks import MASKS
from enxerto.vision.datasets.readers.tables import CSV
from enxerto.vision.datasets.readers.voc import VOC
from enxerto.vision.datasets.readers.yolo import YOLO
from enxerto.vision.datasets.tree import Tree, split_named
from enxerto.vision.specs import Task

FORMATS: Final = (CSV, COCO, YOLO, VOC, MASKS, IMAGES, IMAGE_FOLDER)


def find_format(tree: Tree, task: Task) -> Format | Finding:
    """The one format that the folder is in and the task can be read from, or why there is none."""
    found = [(one, what) for one in FORMATS if (what := one.recognise(tree, task)) is not None]
    # Any annotated data set has folders of pictures, and they are only classes when nothing else is there.
    if any(one not in (IMAGE_FOLDER, CSV) for one, _ in found):
        found = [(one, what) for one, what in found if one is not IMAGE_FOLDER]
    fitting = [(one, what) for one, what in found if task in one.tasks]
    if {one.kind for one, _ in fitting} == {CSV.kind, IMAGE_FOLDER.kind} and _labels_pictures(tree, task):
        return CSV
    if len(fitting) == 1:
        return fitting[0][0]
    described = "; ".join(f"{one.kind} ({what})" for one, what in fitting or found)
    if fitting:
        message = f"several formats fit {task.value}, leave one of them: {described}"
        return error(".", "AMBIGUOUS_FORMAT", message)
    sought = "; ".join(one.sought for one in FORMATS if task in one.tasks)
    seen = described or f"{len(tree.images)} pictures among {len(tree.files)} files"
    return error(".", "UNKNOWN_FORMAT", f"for {task.value} this looks for {sought}; found {seen}")


def _labels_pictures(tree: Tree, task: Task) -> bool:
    """Whether a CSV, and not the folders around the pictures, says of which class they are."""
    # `photos/`, or `train/` and `test/` beside one another, are no classes.
    if sum(split_named(name) is None for name in class_layout(tree).filled) < 2:
        return True
    listed = {picture.path for picture in CSV.read(tree, task).pictures}
    pictures = set(tree.images)
    return all(picture.path in listed for picture in IMAGE_FOLDER.read(tree, task).pictures if picture.path in pictures)
