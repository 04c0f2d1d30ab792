"""Every format, written from the same scenes, is found by looking and read back as it was."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.scans import Scan
from enxerto.vision.snapshots import FolderBlobs, read_samples, write_snapshot
from enxerto.vision.specs import Split, Task
from fakes.dataset_folders import (
    mask_pixels,
    write_class_folders,
    write_coco,
    write_csv,
    write_masks,
    write_picture,
    write_style,
    write_voc,
    write_yolo,
)
from fakes.datasets import Scenes, classification_scenes, detection_scenes, segmentation_scenes, style_scenes


def stored(found: Scan, folder: Path) -> dict[str, object]:
    """Samples of a snapshot by the bytes of their pictures."""
    assert not found.errors, found.errors
    blobs = FolderBlobs(folder)
    manifest, _ = write_snapshot(found, blobs)
    return {sample.data: sample for split in Split for sample in read_samples(manifest, blobs, split)}


def counts(found: Scan) -> Counter:
    return Counter(sample.split for sample in found.samples)


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("write", [write_class_folders, write_csv])
def test_labels(write, splits: bool, tmp_path: Path) -> None:
    scenes = classification_scenes(8, 3)
    found = scan(write(scenes, tmp_path / "data", splits=splits), Task.CLASSIFICATION)
    assert found.class_names == scenes.class_names
    read = stored(found, tmp_path / "blobs")
    for sample in scenes.samples:
        back = read[sample.data]
        assert back.annotation.label == sample.annotation.label
        assert not splits or back.split is sample.split
    if not splits:
        assert counts(found) == {Split.TRAIN: 18, Split.VAL: 3, Split.TEST: 3}
    assert [one.total for one in found.statistics.classes] == [8, 8, 8]
    assert [(one.max_side, one.count) for one in found.statistics.sizes] == [(64, 24)]


@pytest.mark.parametrize(
    ("write", "kind"), [(write_csv, "CSV"), (write_coco, "COCO"), (write_yolo, "YOLO"), (write_voc, "VOC")]
)
def test_boxes(write, kind: str, tmp_path: Path) -> None:
    scenes = detection_scenes(16, 3)
    found = scan(write(scenes, tmp_path / "data"), Task.DETECTION)
    assert found.statistics.format == kind
    read = stored(found, tmp_path / "blobs")
    assert len(read) == 16
    for sample in scenes.samples:
        back = read[sample.data]
        assert back.split is sample.split
        assert len(back.annotation.boxes) == len(sample.annotation.boxes)
        for one, other in zip(back.annotation.boxes, sample.annotation.boxes, strict=True):
            assert found.class_names[one.label] == scenes.class_names[other.label]
            edges = (one.x_min, one.y_min, one.x_max, one.y_max)
            assert edges == pytest.approx((other.x_min, other.y_min, other.x_max, other.y_max), abs=1e-6)
    bare = {finding.path.split("/")[-1] for finding in found.findings if finding.code == "IMAGE_WITHOUT_ANNOTATION"}
    assert bare == {sample.path for sample in scenes.samples if not sample.annotation.boxes}
    assert sum(one.total for one in found.statistics.classes) == found.statistics.annotation_count


@pytest.mark.parametrize("palette", [True, False])
@pytest.mark.parametrize("names", [True, False])
def test_masks(palette: bool, names: bool, tmp_path: Path) -> None:
    scenes = segmentation_scenes(8)
    found = scan(write_masks(scenes, tmp_path / "data", palette=palette, names=names), Task.SEGMENTATION)
    assert found.class_names == (scenes.class_names if names else ("background", "class_1", "class_2"))
    read = stored(found, tmp_path / "blobs")
    for sample in scenes.samples:
        assert read[sample.data].split is sample.split
        np.testing.assert_array_equal(mask_pixels(read[sample.data]), mask_pixels(sample))


def test_run_lengths_become_masks(tmp_path: Path) -> None:
    scenes = segmentation_scenes(8)
    found = scan(write_coco(scenes, tmp_path / "data"), Task.SEGMENTATION)
    assert (found.statistics.format, found.class_names) == ("COCO", scenes.class_names)
    read = stored(found, tmp_path / "blobs")
    for sample in scenes.samples:
        expected = np.where(mask_pixels(sample) == 255, 0, mask_pixels(sample))
        np.testing.assert_array_equal(mask_pixels(read[sample.data]), expected)


def polygons(root: Path, scenes: Scenes) -> Path:
    write_coco(scenes, root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for one in content["annotations"]:
            x, y, width, height = one["bbox"]
            one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        file.write_text(json.dumps(content))
    return root


def yolo_polygons(root: Path, scenes: Scenes) -> Path:
    write_yolo(scenes, root)
    for file in root.rglob("labels/*.txt"):
        rows = []
        for line in file.read_text().splitlines():
            label, x, y, width, height = (float(value) for value in line.split())
            left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
            rows.append(f"{label:g} {left} {top} {right} {top} {right} {bottom} {left} {bottom}")
        file.write_text("\n".join(rows))
    return root


@pytest.mark.parametrize("write", [polygons, yolo_polygons])
def test_polygons_become_masks_and_boxes_stay_readable(write, tmp_path: Path) -> None:
    scenes = detection_scenes(8, val=0.25, test=0.25)
    root = write(tmp_path / "data", scenes)
    found = scan(root, Task.SEGMENTATION)
    assert found.class_names == ("background", *scenes.class_names)
    read = stored(found, tmp_path / "blobs")
    for sample in scenes.samples:
        expected = np.zeros((sample.height, sample.width), np.uint8)
        for box in sample.annotation.boxes:
            expected[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = box.label + 1
        np.testing.assert_array_equal(mask_pixels(read[sample.data]), expected)
    boxes = scan(root, Task.DETECTION)
    assert not boxes.errors
    assert boxes.statistics.annotation_count == sum(len(sample.annotation.boxes) for sample in scenes.samples)


def test_black_and_white_masks_have_a_foreground(tmp_path: Path) -> None:
    scenes = segmentation_scenes(6)
    root = write_masks(scenes, tmp_path, names=False)
    for file in (root / "masks").rglob("*.png"):
        with Image.open(file) as mask:
            pixels = np.where(np.isin(np.asarray(mask), (1, 2)), 255, 0).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    found = scan(root, Task.SEGMENTATION)
    assert not found.errors
    assert found.class_names == ("background", "foreground")
    assert all(sample.mask_labels == (0, 1) for sample in found.samples)


def test_values_of_masks_without_names_become_classes_one_after_another(tmp_path: Path) -> None:
    scenes = segmentation_scenes(8)
    root = write_masks(scenes, tmp_path / "data", names=False)
    sparse = np.arange(256, dtype=np.uint8)
    sparse[1:3] = (7, 200)
    for file in (root / "masks").rglob("*.png"):
        with Image.open(file) as mask:
            pixels = sparse[np.asarray(mask)]
        Image.fromarray(pixels).save(file)
    found = scan(root, Task.SEGMENTATION)
    assert found.class_names == ("background", "class_7", "class_200")
    (finding,) = found.findings
    assert finding.code == "MASK_RENUMBERED"
    assert "7 is class 1, 200 is class 2" in finding.message
    assert {label for sample in found.samples for label in sample.mask_labels} <= {0, 1, 2}
    read = stored(found, tmp_path / "blobs")
    for sample in scenes.samples:
        np.testing.assert_array_equal(mask_pixels(read[sample.data]), mask_pixels(sample))


def test_coloured_masks_need_a_file_that_names_the_colours(tmp_path: Path) -> None:
    scenes = segmentation_scenes(6)
    root = write_masks(scenes, tmp_path, names=False)
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    for file in (root / "masks").rglob("*.png"):
        with Image.open(file) as mask:
            pixels = np.asarray(mask).copy()
        pixels[pixels == 255] = 0
        Image.fromarray(colours[pixels]).save(file)
    assert {finding.code for finding in scan(root, Task.SEGMENTATION).errors} >= {"MASK_COLOURS"}
    (root / "labelmap.txt").write_text("# label:colour\nbackground:0,0,0::\ncircle:128,0,0::\nsquare:0,128,0::\n")
    found = scan(root, Task.SEGMENTATION)
    assert not found.errors
    assert found.class_names == ("background", "circle", "square")


def test_pictures_of_a_style(tmp_path: Path) -> None:
    scenes = style_scenes(6)
    found = scan(write_style(scenes, tmp_path), Task.STYLE)
    assert not found.errors
    assert found.class_names == ("content", "style")
    style = [sample for sample in found.samples if sample.label == 1]
    assert [(sample.path, sample.split) for sample in style] == [("style/stripes.png", Split.TRAIN)]
    assert {sample.split for sample in found.samples if sample.label == 0} == set(Split)
    (tmp_path / "style" / "second.png").write_bytes(scenes.samples[0].data)
    assert [finding.code for finding in scan(tmp_path, Task.STYLE).errors] == ["STYLE_PICTURE"]


def test_a_folder_of_another_task_is_refused_in_words(tmp_path: Path) -> None:
    write_voc(detection_scenes(6), tmp_path)
    (finding,) = scan(tmp_path, Task.SEGMENTATION).errors
    assert finding.code == "UNKNOWN_FORMAT"
    assert "VOC (Annotations/*.xml)" in finding.message
    assert "COCO JSON" in finding.message
    assert {one.code for one in scan(tmp_path, Task.CLASSIFICATION).errors} == {"UNKNOWN_FORMAT"}


def test_several_formats_are_refused_with_their_names(tmp_path: Path) -> None:
    scenes = detection_scenes(6)
    write_voc(scenes, tmp_path)
    write_coco(scenes, tmp_path)
    (finding,) = scan(tmp_path, Task.DETECTION).errors
    assert finding.code == "AMBIGUOUS_FORMAT"
    assert "COCO (annotations/instances_test.json" in finding.message
    assert "VOC" in finding.message


@pytest.mark.parametrize(
    ("listed", "others"),
    [("photos", []), ("train", ["test"]), ("train", ["test", "sample"]), ("part_1", []), ("part_1 part_2", [])],
)
def test_a_csv_labels_the_pictures_of_folders_that_are_no_classes(
    listed: str, others: list[str], tmp_path: Path
) -> None:
    scenes = classification_scenes(8, 2)
    folders = listed.split()
    rows = ["file,label"]
    for number, sample in enumerate(scenes.samples):
        path = f"{folders[number % len(folders)]}/{number}.png"
        write_picture(tmp_path / path, sample)
        rows.append(f"{path},{scenes.class_names[sample.annotation.label or 0]}")
    for number, folder in enumerate(others):
        write_picture(tmp_path / folder / "other.png", classification_scenes(1, 2, seed=9).samples[number % 2])
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = scan(tmp_path)
    assert not found.errors
    assert (found.statistics.format, found.class_names, len(found.samples)) == ("CSV", scenes.class_names, 16)
    assert {one.code for one in found.findings} == ({"UNLISTED_IMAGES"} if others else set())


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("0.0", "1.0")])
def test_a_csv_with_a_column_for_each_class(tmp_path: Path, no: str, yes: str) -> None:
    scenes = classification_scenes(8, 3)
    rows = ["image, " + ", ".join([*scenes.class_names, "unseen"])]
    for number, sample in enumerate(scenes.samples):
        write_picture(tmp_path / "photos" / f"ISIC_{number}.png", sample)
        marks = [yes if label == sample.annotation.label else no for label in range(4)]
        rows.append(f"ISIC_{number}, " + ", ".join(marks))
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    found = scan(tmp_path)
    assert not found.errors, found.errors
    assert (found.statistics.format, found.class_names) == ("CSV", scenes.class_names)
    names = {sample.path: found.class_names[sample.label] for sample in found.samples}
    given = {f"photos/ISIC_{n}.png": scenes.class_names[one.annotation.label] for n, one in enumerate(scenes.samples)}
    assert names == given
    assert "EMPTY_CLASS" in {one.code for one in found.findings}


def test_class_folders_and_a_csv_of_other_pictures_are_refused(tmp_path: Path) -> None:
    scenes = classification_scenes(8, 2)
    write_class_folders(scenes, tmp_path, splits=True)
    write_picture(tmp_path / "test" / "unknown.png", classification_scenes(1, 2, seed=9).samples[0])
    (tmp_path / "sample_submission.csv").write_text("id,label\nunknown,cat\n")
    assert [one.code for one in scan(tmp_path).errors] == ["AMBIGUOUS_FORMAT"]


def test_an_outer_folder_and_other_file_kinds_do_not_matter(tmp_path: Path) -> None:
    scenes = detection_scenes(6)
    root = tmp_path / "outer"
    write_yolo(scenes, root / "export")
    for file in list(root.rglob("*.png")):
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            picture.save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    found = scan(root, Task.DETECTION)
    assert not found.errors
    assert all(sample.path.endswith(".jpg") for sample in found.samples)


def test_a_small_polygon_before_a_large_one_stays_visible(tmp_path: Path) -> None:
    root = yolo_polygons(tmp_path, detection_scenes(8, objects=1))
    (file, *_) = sorted(root.rglob("train/labels/*.txt"))
    small = "0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
    whole = "1 0 0 1 0 1 1 0 1"
    file.write_text(f"{small}\n{whole}\n")
    found = scan(root, Task.SEGMENTATION)
    assert not found.errors
    (sample,) = (one for one in found.samples if one.path == f"train/images/{file.stem}.png")
    assert sample.mask_labels == (1, 2)
    assert sample.mask is not None
    mask = sample.mask.render(8, 8)
    assert (mask[2:4, 2:4] == 1).all()
    assert (mask[4:] == 2).all()
