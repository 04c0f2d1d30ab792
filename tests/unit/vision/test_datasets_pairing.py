"""Every picture gets what was written for it, in whatever folder its like of the same name is; a doubt is an error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.scans import Scan
from enxerto.vision.specs import Split, Task
from fakes.datasets import texture

SIDE = 32


def write(root: Path, *paths: str) -> Path:
    """Pictures of the same size, no two alike; a mask is of the class that its path ends in front of a colon."""
    generator = np.random.default_rng(len(list(root.rglob("*"))))
    for given in paths:
        path, _, label = given.partition(":")
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if label:
            Image.fromarray(np.full((SIDE, SIDE), int(label), np.uint8)).save(file)
        else:
            texture(generator, SIDE, SIDE).save(file)
    return root


def told(found: Scan) -> set[tuple[str, str]]:
    """Code and file of the findings about single files."""
    return {(finding.code, finding.path) for finding in found.findings if finding.path != "."}


def pairs(found: Scan) -> dict[str, str]:
    """Pictures to the files that their masks are drawn from."""
    return {sample.path: sample.mask.path for sample in found.samples if sample.mask is not None}


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        ("images/a/1.jpg images/b/1.jpg", "masks/a/1.png masks/b/1.png"),
        ("a/images/1.jpg b/images/1.jpg", "a/masks/1.png b/masks/1.png"),
        ("raw/images/a/1.jpg raw/images/b/1.jpg", "drawn/masks/a/1.png drawn/masks/b/1.png"),
        ("images/test_a/1.jpg images/test_b/1.jpg", "masks/test_a/1.png masks/test_b/1.png"),
        ("train/a/1.jpg train/b/1.jpg", "train/masks/a/1.png train/masks/b/1.png"),
        ("photos/a/1.jpg photos/b/1.jpg", "masks/a/1.png masks/b/1.png"),
        ("photos/a/1.jpg photos/b/1.jpg", "drawn/a/1_mask.png drawn/b/1_mask.png"),
        ("a/1.jpg b/1.jpg", "a/1_mask.png b/1_mask.png"),
        ("a/1.jpg b/1.jpg", "a/masks/1.png b/masks/1.png"),
        ("images/1.jpg images/2.jpg", "masks/1.png masks/2_mask.png"),
        ("images/1.jpg images/1_l.jpg", "masks/1.png masks/1_l.png"),
        ("images/1.jpg images/a/1.jpg", "masks/1.png masks/a/1.png"),
        ("images/a/1.jpg images/b/2.jpg", "masks/1.png masks/2.png"),
        ("images/1.jpg images/2.jpg", "annotations/trimaps/1.png annotations/trimaps/2.png"),
        ("train/images/1.jpg val/images/1.jpg", "masks/train/1.png masks/val/1.png"),
        ("train/1.png val/1.png", "train_labels/1_L.png val_labels/1_L.png"),
        ("photos/1.jpg photos/2.jpg", "drawn/by/hand/1_mask.png drawn/by/hand/2_mask.png"),
        ("x/JPEGImages/1.jpg y/JPEGImages/1.jpg", "x/SegmentationClass/1.png y/SegmentationClass/1.png"),
    ],
)
def test_a_mask_belongs_to_the_picture_of_its_folder(pictures: str, masks: str, tmp_path: Path) -> None:
    labelled = [f"{mask}:{label}" for label, mask in enumerate(masks.split())]
    found = scan(
        write(tmp_path, "more/images/0.jpg", "more/masks/0.png:0", *pictures.split(), *labelled), Task.SEGMENTATION
    )
    assert not found.errors
    expected = dict(zip(pictures.split(), masks.split(), strict=True))
    assert pairs(found) == expected | {"more/images/0.jpg": "more/masks/0.png"}
    labels = {sample.path: sample.mask_labels for sample in found.samples}
    assert [labels[path] for path in expected] == [(0,), (1,)]


@pytest.mark.parametrize(
    "paths",
    [
        "images/1.jpg masks/1.png:0 labels/1.png:1",
        "images/1.jpg masks/1.png:0 masks/1_mask.png:1 masks/1_seg.png:1",
        "images/1.jpg images/1.png masks/1.png:1",
        "images/a/1.jpg images/b/1.jpg masks/1.png:1",
        "images/1.jpg masks/a/1.png:0 masks/b/1.png:1",
        "day/1.jpg night/1.jpg day_drawn/1_mask.png:0 night_drawn/1_mask.png:1",
    ],
)
def test_masks_that_fit_several_pictures_or_pictures_that_fit_several_masks_are_errors(
    paths: str, tmp_path: Path
) -> None:
    write(tmp_path, *paths.split(), "images/2.jpg", "masks/2.png:1")
    found = scan(tmp_path, Task.SEGMENTATION)
    (finding,) = (one for one in found.errors if one.path != ".")
    assert finding.code == "AMBIGUOUS_MASK"
    told = f"{finding.path} {finding.message}"
    assert all(path.partition(":")[0] in told for path in paths.split())
    assert pairs(found) == {"images/2.jpg": "masks/2.png"}


def test_masks_that_are_all_in_doubt_are_told_as_such(tmp_path: Path) -> None:
    found = scan(write(tmp_path, "images/1.jpg", "masks/a/1.png:0", "masks/b/1.png:1"), Task.SEGMENTATION)
    assert told(found) == {("AMBIGUOUS_MASK", "images/1.jpg")}


def test_a_mask_of_another_folder_is_of_no_picture(tmp_path: Path) -> None:
    write(tmp_path, "images/a/1.jpg", "images/b/1.jpg", "images/b/2.jpg", "images/3.jpg", "overlays/3.jpg")
    write(tmp_path, "masks/a/1.png:1", "masks/c/1.png:1", "masks/a/2.png:1", "masks/3.png:0")
    found = scan(tmp_path, Task.SEGMENTATION)
    assert pairs(found) == {"images/a/1.jpg": "masks/a/1.png", "images/3.jpg": "masks/3.png"}
    assert told(found) == {
        ("MISSING_IMAGE", "masks/c/1.png"),
        ("MISSING_IMAGE", "masks/a/2.png"),
        ("IMAGE_WITHOUT_ANNOTATION", "images/b/1.jpg"),
        ("IMAGE_WITHOUT_ANNOTATION", "images/b/2.jpg"),
        ("IMAGE_WITHOUT_ANNOTATION", "overlays/3.jpg"),
    }


def test_a_row_is_of_no_other_folders_picture(tmp_path: Path) -> None:
    """Detection would add its boxes to the picture of the same name in silence."""
    write(tmp_path, "a/1.jpg", "b/2.jpg", "new/deep/3.jpg")
    rows = ["a/1.jpg,1,1,9,9,cat", "b/1.jpg,2,2,8,8,dog", "b/2,1,1,9,9,cat", "old/3.jpg,1,1,9,9,dog"]
    (tmp_path / "data.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max,label", *rows]))
    found = scan(tmp_path, Task.DETECTION)
    assert [(one.code, one.line) for one in found.errors if one.path != "."] == [("MISSING_IMAGE", 3)]
    boxes = {sample.path: len(sample.boxes) for sample in found.samples}
    assert boxes == {"a/1.jpg": 1, "b/2.jpg": 1, "new/deep/3.jpg": 1}


def test_names_without_extension_are_found_in_their_folder(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    rows = ["a/1,1,1,9,9,cat", "b/1,1,1,9,9,dog"]
    (tmp_path / "data.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max,label", *rows]))
    found = scan(tmp_path, Task.DETECTION)
    assert not told(found)
    assert {sample.path: sample.labels for sample in found.samples} == {"a/1.jpg": (0,), "b/1.jpg": (1,)}


def voc(filename: str, name: str) -> str:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    return f"<annotation><filename>{filename}</filename><object><name>{name}</name>{box}</object></annotation>"


def test_an_xml_is_of_the_picture_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "JPEGImages/a/1.jpg", "JPEGImages/b/1.jpg", "JPEGImages/a/2.jpg", "JPEGImages/b/3.jpg")
    for path, name in (("a/1", "cat"), ("b/1", "dog"), ("b/2", "dog"), ("3", "cat")):
        file = tmp_path / "Annotations" / f"{path}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(voc(f"{file.stem}.jpg", name))
    found = scan(tmp_path, Task.DETECTION)
    assert told(found) == {
        ("MISSING_IMAGE", "Annotations/b/2.xml"),
        ("IMAGE_WITHOUT_ANNOTATION", "JPEGImages/a/2.jpg"),
    }
    named = {sample.path: [found.class_names[box.label] for box in sample.boxes] for sample in found.samples}
    assert named == {
        "JPEGImages/a/1.jpg": ["cat"],
        "JPEGImages/b/1.jpg": ["dog"],
        "JPEGImages/a/2.jpg": [],
        "JPEGImages/b/3.jpg": ["cat"],
    }


def test_labels_of_two_pictures_are_in_doubt(tmp_path: Path) -> None:
    write(tmp_path, "images/a/1.jpg", "images/a/1.png", "images/b/1.jpg")
    for folder, label in (("a", 0), ("b", 1)):
        file = tmp_path / "labels" / folder / "1.txt"
        file.parent.mkdir(parents=True)
        file.write_text(f"{label} 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    found = scan(tmp_path, Task.DETECTION)
    assert [(one.code, one.path) for one in found.errors if one.path != "."] == [("DUPLICATE_IMAGE", "labels/a/1.txt")]
    assert all(path in found.errors[-1].message for path in ("images/a/1.jpg", "images/a/1.png"))


def test_lists_are_of_the_folder_around_them(tmp_path: Path) -> None:
    write(tmp_path, *(f"{year}/JPEGImages/{number}.jpg" for year in "xy" for number in "123"))
    for year, name in (("x", "cat"), ("y", "dog")):
        for number in "123":
            file = tmp_path / year / "Annotations" / f"{number}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(voc(f"{number}.jpg", name))
        (tmp_path / year / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "x" / "ImageSets" / "Main" / "train.txt").write_text("1\n2\n")
    (tmp_path / "x" / "ImageSets" / "Main" / "val.txt").write_text("3\n")
    (tmp_path / "y" / "ImageSets" / "Main" / "val.txt").write_text("1\n")
    (tmp_path / "y" / "ImageSets" / "Main" / "test.txt").write_text("3\n")
    found = scan(tmp_path, Task.DETECTION)
    assert not told(found)
    splits = {sample.path: sample.split for sample in found.samples}
    assert splits == {
        "x/JPEGImages/1.jpg": Split.TRAIN,
        "x/JPEGImages/2.jpg": Split.TRAIN,
        "x/JPEGImages/3.jpg": Split.VAL,
        "y/JPEGImages/1.jpg": Split.VAL,
        "y/JPEGImages/3.jpg": Split.TEST,
    }
