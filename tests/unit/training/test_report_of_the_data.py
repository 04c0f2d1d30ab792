"""What a run's report tells of the data that it was trained on."""

import dataclasses
import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from enxerto.kernel.names import BaseModelName, ModelName, SnapshotName
from enxerto.training.domain import RunSpec
from enxerto.training.worker.drawing import draw_report
from enxerto.training.worker.order import JobSpec
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.report import Report
from enxerto.vision.snapshots import FolderBlobs, Manifest, find_samples, read_manifest, write_snapshot
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.recipe import Evaluation, Trained
from fakes.dataset_folders import write_class_folders, write_coco
from fakes.datasets import classification_scenes, detection_scenes
from worker_orders import small_spec

EVIL = "<script>alert(1)"


def _report(manifest: Manifest, blobs: FolderBlobs) -> Report:
    run = RunSpec(
        snapshot=SnapshotName.parse("projects/default/datasets/shapes/snapshots/1"),
        base_model=BaseModelName.parse("baseModels/resnet18"),
        model=ModelName.parse("projects/default/models/shapes"),
        finetune=small_spec(),
        num_workers=1,
    )
    trained = Trained(
        network=None,
        served=None,
        preprocess=PreprocessSpec(32, 32, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        class_names=manifest.class_names,
        history=(),
        best=-1,
        stop_reason="EPOCHS",
    )
    evaluation = Evaluation(score=0.5, score_name="accuracy", metrics=(), detail={}, headline={})
    order = JobSpec("run", run, manifest.digest, "", warnings=("the service said so",))
    return draw_report(order, manifest, blobs, trained, evaluation, provenance={}, environment={})


def _boxes(root: Path) -> Path:
    write_coco(detection_scenes(12), root)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    category = content["categories"][0]["id"]
    for number, box in enumerate([[20, 20, 0, 30], [70, 70, 60, 60]]):
        image = content["images"][number]["id"]
        annotation = {"id": 900 + number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
        content["annotations"].append(annotation)
    file.write_text(json.dumps(content))
    return root


def test_boxes_are_told_and_drawn(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    _, sha256 = write_snapshot(scan(_boxes(tmp_path / "data"), Task.DETECTION), blobs)
    manifest = read_manifest(blobs, sha256)
    clipped = next(one for one in manifest.findings if one.code == "BOX_CLIPPED")
    assert (clipped.pictures, clipped.box) == (("train/0001.png",), (70, 70, 130, 130))
    report = _report(manifest, blobs)
    assert [figure.name for figure in report.data_figures] == ["classes", "sizes", "findings"]
    (table,) = report.data_tables
    assert len(table.rows) == manifest.finding_count
    assert {"BOX_CLIPPED", "BOX_WITHOUT_AREA"} <= {row[-1] for row in table.rows}
    assert any(line.endswith("[BOX_CLIPPED]") for line in report.warnings)
    with Image.open(BytesIO(report.data_figures[-1].png)) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    # The red of the boxes, which lie on white beyond the picture.
    assert (np.abs(pixels - (0xC5, 0x30, 0x30)).sum(axis=2) < 12).sum() > 300
    boxes = manifest.statistics.box_sizes
    assert sum(one.count for one in boxes) == manifest.statistics.annotation_count


def test_copies_across_splits_are_shown_side_by_side(tmp_path: Path) -> None:
    scenes = classification_scenes(8)
    first = scenes.samples[0]
    copy = dataclasses.replace(first, path=f"{Path(first.path).parent}/{EVIL}.png", split=Split.TEST)
    root = write_class_folders(
        dataclasses.replace(scenes, samples=(*scenes.samples, copy)), tmp_path / "data", splits=True
    )
    blobs = FolderBlobs(tmp_path / "blobs")
    manifest, _ = write_snapshot(scan(root), blobs)
    (leak,) = [one for one in manifest.findings if one.code == "SPLIT_LEAK"]
    assert len(leak.pictures) == 2
    found = find_samples(manifest, blobs, [*leak.pictures, "nowhere.png"])
    assert set(found) == set(leak.pictures)
    assert {one.data for one in found.values()} == {first.data}
    assert [figure.name for figure in _report(manifest, blobs).data_figures] == ["classes", "sizes", "findings"]


def test_data_without_findings_says_what_the_service_knew(tmp_path: Path) -> None:
    root = write_class_folders(classification_scenes(8), tmp_path / "data", splits=True)
    blobs = FolderBlobs(tmp_path / "blobs")
    manifest, _ = write_snapshot(scan(root), blobs)
    manifest = dataclasses.replace(manifest, findings=(), finding_count=0)
    report = _report(manifest, blobs)
    assert report.warnings == ("the service said so",)
    assert report.data_tables == ()
    assert [figure.name for figure in report.data_figures] == ["classes", "sizes"]


def test_a_manifest_of_an_older_import_is_read(tmp_path: Path) -> None:
    root = write_class_folders(classification_scenes(4), tmp_path / "data", splits=True)
    manifest, _ = write_snapshot(scan(root), FolderBlobs(tmp_path / "blobs"))
    older = json.loads(manifest.to_bytes())
    del older["findings"], older["finding_count"], older["statistics"]["box_sizes"]
    read = Manifest.from_bytes(json.dumps(older).encode())
    assert (read.findings, read.finding_count, read.digest) == ((), 0, manifest.digest)
