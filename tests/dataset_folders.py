"""Drawn data sets as folders, each in a format that people have."""

import json
from pathlib import Path

import numpy as np

from enxerto.vision.specs import Task
from fakes.datasets import (
    Scenes,
    classification_scenes,
    detection_scenes,
    segmentation_scenes,
    style_scenes,
)


def write_folder(task: Task, folder: Path, *, side: int = 64, count: int = 12, seed: int = 0) -> Scenes:
    """Draw pictures of a task below `folder`, splits given, and return what was drawn."""
    match task:
        case Task.CLASSIFICATION:
            scenes = classification_scenes(count, side=side, seed=seed)
            for sample in scenes.samples:
                _write(folder / sample.split.lower() / sample.path, sample.data)
        case Task.DETECTION:
            scenes = detection_scenes(count, side=side, seed=seed)
            _write_coco(scenes, folder)
        case Task.SEGMENTATION:
            scenes = segmentation_scenes(count, side=side, seed=seed)
            for sample in scenes.samples:
                split = sample.split.lower()
                _write(folder / split / "images" / sample.path, sample.data)
                assert sample.annotation.mask is not None
                _write(folder / split / "masks" / sample.path, sample.annotation.mask)
            (folder / "classes.txt").write_text("\n".join(scenes.class_names))
        case Task.STYLE:
            scenes = style_scenes(count, side=side, seed=seed)
            for sample in scenes.samples:
                _write(folder / sample.path, sample.data)
    return scenes


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_coco(scenes: Scenes, folder: Path) -> None:
    categories = [{"id": 10 + label, "name": name} for label, name in enumerate(scenes.class_names)]
    for split in sorted({sample.split for sample in scenes.samples}):
        images, annotations = [], []
        for number, sample in enumerate(one for one in scenes.samples if one.split is split):
            _write(folder / split.lower() / sample.path, sample.data)
            images.append({"id": number, "file_name": sample.path, "width": sample.width, "height": sample.height})
            for box in sample.annotation.boxes:
                width, height = box.x_max - box.x_min, box.y_max - box.y_min
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": 10 + box.label,
                        "bbox": [box.x_min, box.y_min, width, height],
                        "area": float(np.prod((width, height))),
                        "iscrowd": 0,
                    }
                )
        target = folder / split.lower() / "_annotations.coco.json"
        target.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
