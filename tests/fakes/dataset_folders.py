"""Scenes written to disk in every format that people have."""

import io
import json
import posixpath
from pathlib import Path

import numpy as np
from PIL import Image

from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.specs import Split, Task
from fakes.datasets import Scenes, classification_scenes, detection_scenes, segmentation_scenes, style_scenes

FOLDERS = {Split.TRAIN: "train", Split.VAL: "val", Split.TEST: "test"}


def write_picture(file: Path, sample: StoredSample) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(sample.data)


def write_class_folders(scenes: Scenes, root: Path, *, splits: bool = False) -> Path:
    for sample in scenes.samples:
        outer = root / FOLDERS[sample.split] if splits else root
        write_picture(outer / sample.path, sample)
    return root


def write_csv(scenes: Scenes, root: Path, *, splits: bool = True) -> Path:
    """One `data.csv` beside `images/`."""
    boxes = any(sample.annotation.boxes for sample in scenes.samples)
    rows = ["filename,xmin,ymin,xmax,ymax,class,split" if boxes else "Image Path,Label,split"]
    for sample in scenes.samples:
        name = sample.path.replace("/", "_")
        write_picture(root / "images" / name, sample)
        split = FOLDERS[sample.split] if splits else ""
        if not boxes:
            rows.append(f"images/{name},{scenes.class_names[sample.annotation.label or 0]},{split}")
            continue
        if not sample.annotation.boxes:
            rows.append(f"{name},,,,,,{split}")
        for box in sample.annotation.boxes:
            edges = f"{box.x_min},{box.y_min},{box.x_max},{box.y_max}"
            rows.append(f"{name},{edges},{scenes.class_names[box.label]},{split}")
    (root / "data.csv").write_text("\n".join(rows) + "\n")
    return root


def write_coco(scenes: Scenes, root: Path, *, first_id: int = 3) -> Path:
    """`annotations/instances_<split>.json` beside `<split>/`; category ids are sparse."""
    names = [name for name in scenes.class_names if name != "background"]
    categories = [{"id": first_id + 7 * position, "name": name} for position, name in enumerate(names)]
    numbers = {one["name"]: one["id"] for one in categories}
    for split, folder in FOLDERS.items():
        images, annotations = [], []
        for number, sample in enumerate((s for s in scenes.samples if s.split is split), start=1):
            write_picture(root / folder / sample.path, sample)
            images.append({"id": number, "file_name": sample.path, "width": sample.width, "height": sample.height})
            for box in sample.annotation.boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": numbers[scenes.class_names[box.label]],
                        "bbox": [box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min],
                        "iscrowd": int(box.crowd),
                    }
                )
            for label, runs in _runs(sample).items():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": numbers[scenes.class_names[label]],
                        "segmentation": {"size": [sample.height, sample.width], "counts": runs},
                        "iscrowd": 1,
                    }
                )
        if images:
            content = {"images": images, "annotations": annotations, "categories": categories}
            file = root / "annotations" / f"instances_{folder}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
    return root


def _runs(sample: StoredSample) -> dict[int, list[int]]:
    """Run lengths of each class in a mask, column by column."""
    found = {}
    for label in mask_labels(sample):
        flat = (mask_pixels(sample) == label).T.ravel().astype(np.int8)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
        bounds = np.concatenate([[0], edges, [flat.size]])
        runs = np.diff(bounds).tolist()
        found[label] = runs if flat[-1] == 0 else runs[:-1]
    return found


def mask_pixels(sample: StoredSample) -> np.ndarray:
    assert sample.annotation.mask is not None
    with Image.open(io.BytesIO(sample.annotation.mask)) as mask:
        return np.asarray(mask)


def mask_labels(sample: StoredSample) -> list[int]:
    if sample.annotation.mask is None:
        return []
    return [int(value) for value in np.unique(mask_pixels(sample)) if value not in (0, 255)]


def write_yolo(scenes: Scenes, root: Path) -> Path:
    """As Roboflow exports it: `../train/images` in data.yaml."""
    lines = ["train: ../train/images", "val: ../val/images", f"nc: {len(scenes.class_names)}", "names:"]
    lines += [f"  {number}: {name}" for number, name in enumerate(scenes.class_names)]
    if any(sample.split is Split.TEST for sample in scenes.samples):
        lines.insert(2, "test: ../test/images")
    for sample in scenes.samples:
        folder = root / FOLDERS[sample.split]
        write_picture(folder / "images" / sample.path, sample)
        rows = []
        for box in sample.annotation.boxes:
            x, y = (box.x_min + box.x_max) / 2 / sample.width, (box.y_min + box.y_max) / 2 / sample.height
            width, height = (box.x_max - box.x_min) / sample.width, (box.y_max - box.y_min) / sample.height
            rows.append(f"{box.label} {x} {y} {width} {height}")
        if rows:
            file = (folder / "labels" / sample.path).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(rows) + "\n")
    (root / "data.yaml").write_text("\n".join(lines) + "\n")
    return root


def write_voc(scenes: Scenes, root: Path) -> Path:
    sets: dict[str, list[str]] = {}
    for sample in scenes.samples:
        name = posixpath.splitext(sample.path)[0]
        write_picture(root / "JPEGImages" / sample.path, sample)
        objects = "".join(
            f"<object>\n<name>{scenes.class_names[box.label]}</name><difficult>{int(box.crowd)}</difficult>"
            f"<bndbox><xmin>{box.x_min + 1:g}</xmin><ymin>{box.y_min + 1:g}</ymin>"
            f"<xmax>{box.x_max:g}</xmax><ymax>{box.y_max:g}</ymax></bndbox>\n</object>\n"
            for box in sample.annotation.boxes
        )
        size = f"<size><width>{sample.width}</width><height>{sample.height}</height><depth>3</depth></size>"
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>\n<filename>{sample.path}</filename>{size}\n{objects}</annotation>\n")
        sets.setdefault(FOLDERS[sample.split], []).append(name)
    for split, names in sets.items():
        file = root / "ImageSets" / "Main" / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(names) + "\n")
    return root


def write_masks(scenes: Scenes, root: Path, *, palette: bool = False, names: bool = True) -> Path:
    """`images/<split>/x.png` and `masks/<split>/x.png`."""
    for sample in scenes.samples:
        write_picture(root / "images" / FOLDERS[sample.split] / sample.path, sample)
        mask = Image.fromarray(mask_pixels(sample))
        if palette:
            mask = mask.convert("L")
            mask.putpalette([value for index in range(256) for value in (index * 37 % 256, index * 91 % 256, index)])
        file = root / "masks" / FOLDERS[sample.split] / sample.path
        file.parent.mkdir(parents=True, exist_ok=True)
        mask.save(file)
    if names:
        (root / "classes.txt").write_text("\n".join(scenes.class_names) + "\n")
    return root


def write_style(scenes: Scenes, root: Path) -> Path:
    for sample in scenes.samples:
        write_picture(root / sample.path, sample)
    return root


def write_folder(task: Task, root: Path, *, count: int = 12, seed: int = 0) -> Scenes:
    """Draw pictures of a task, write them in one of its formats with their splits, and return what was drawn."""
    match task:
        case Task.CLASSIFICATION:
            scenes = classification_scenes(count, seed=seed)
            write_class_folders(scenes, root, splits=True)
        case Task.DETECTION:
            scenes = detection_scenes(count, seed=seed)
            write_coco(scenes, root)
        case Task.SEGMENTATION:
            scenes = segmentation_scenes(count, seed=seed)
            write_masks(scenes, root)
        case Task.STYLE:
            scenes = style_scenes(count, seed=seed)
            write_style(scenes, root)
    return scenes
