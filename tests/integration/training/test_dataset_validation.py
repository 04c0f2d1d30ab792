"""Data of every task through the front door: looked at, imported, and refused with every finding."""

import time
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from enxerto.type.v1 import task_pb2
from fakes.dataset_folders import write_class_folders, write_coco, write_csv, write_masks, write_style, write_yolo
from fakes.datasets import classification_scenes, detection_scenes, segmentation_scenes, style_scenes
from training_calls import create_dataset, import_folder, refusal, snapshot_source, start_import, validate

READY, FAILED = dataset_pb2.Snapshot.STATE_READY, dataset_pb2.Snapshot.STATE_FAILED
ERROR = dataset_pb2.Finding.SEVERITY_ERROR


@pytest.fixture
def datasets(service):
    with service.stubs() as (stub, _):
        yield stub


def new_dataset(datasets, task: str = "CLASSIFICATION") -> str:
    return create_dataset(datasets, f"v-{uuid.uuid4().hex[:12]}", task_pb2.Task.Value(f"TASK_{task}"))


@pytest.mark.parametrize(
    "case",
    [
        (classification_scenes(4), write_csv, "CSV"),
        (detection_scenes(8), write_coco, "COCO"),
        (detection_scenes(8), write_yolo, "YOLO"),
        (segmentation_scenes(6), write_masks, "MASKS"),
        (style_scenes(4), write_style, "IMAGES"),
    ],
    ids=["csv", "coco", "yolo", "masks", "images"],
)
def test_what_a_validation_finds_is_what_an_import_stores(service, datasets, folder, case):
    scenes, write, kind = case
    write(scenes, folder)
    dataset = new_dataset(datasets, scenes.task.value)
    before = set((service.folder / "objects").rglob("*"))
    report = validate(datasets, dataset, path=folder)
    assert report.importable
    assert set((service.folder / "objects").rglob("*")) == before
    snapshot = import_folder(datasets, dataset, folder)
    assert snapshot.state == READY, snapshot.findings
    assert (snapshot.statistics, snapshot.split_counts) == (report.statistics, report.split_counts)
    assert list(snapshot.findings) == list(report.findings)
    assert snapshot.statistics.format == kind
    assert snapshot.statistics.image_count == len(scenes.samples) == sum(snapshot.split_counts.values())
    assert [one.class_name for one in snapshot.statistics.classes] == list(snapshot.class_names)
    read = datasets.GetDataset(dataset_service_pb2.GetDatasetRequest(name=dataset))
    assert read.task == task_pb2.Task.Value(f"TASK_{scenes.task}")


def test_an_import_with_errors_fails_with_every_finding_and_its_line(datasets, folder):
    write_yolo(detection_scenes(8, objects=1), folder)
    file = sorted((folder / "train" / "labels").iterdir())[0]
    path = file.relative_to(folder).as_posix()
    file.write_text(file.read_text() + "9 0.5 0.5 0.1 0.1\n0 1.9 0.5 0.1 0.1\n0 0.95 0.5 0.2 0.1\n")
    dataset = new_dataset(datasets, "DETECTION")
    report = validate(datasets, dataset, path=folder)
    snapshot = import_folder(datasets, dataset, folder)
    assert not report.importable
    assert (snapshot.state, snapshot.digest) == (FAILED, "")
    assert list(snapshot.findings) == list(report.findings)
    found = [(one.code, one.path, one.line) for one in snapshot.findings if one.severity == ERROR]
    assert found == [("UNKNOWN_CLASS", path, 2), ("BOX_OUTSIDE", path, 3)]
    assert ("BOX_CLIPPED", path, 4) in [(one.code, one.path, one.line) for one in snapshot.findings]
    assert snapshot.statistics.image_count == 8


def test_progress_comes_before_the_report(datasets, folder):
    write_class_folders(classification_scenes(40, 2), folder)
    dataset = new_dataset(datasets)
    request = dataset_service_pb2.ValidateDatasetRequest(dataset=dataset, source=snapshot_source(folder))
    *progress, last = datasets.ValidateDataset(request)
    assert last.WhichOneof("result") == "report"
    assert [one.WhichOneof("result") for one in progress] == ["progress"] * len(progress)
    assert (progress[-1].progress.images_done, progress[-1].progress.image_count) == (80, 80)


def test_a_validation_ends_when_its_caller_leaves(service, datasets, folder):
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for number in range(60):
            pixels = generator.integers(0, 255, (900, 900, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png", compress_level=0)
    dataset = new_dataset(datasets)
    request = dataset_service_pb2.ValidateDatasetRequest(dataset=dataset, source=snapshot_source(folder))
    call = datasets.ValidateDataset(request)
    next(call)
    call.cancel()
    # One validation runs at a time here, so a second one is only answered when the first has let go.
    small = write_class_folders(classification_scenes(3, 2), folder / "small")
    started = time.monotonic()
    assert validate(datasets, dataset, path=small).importable
    assert time.monotonic() - started < 3


def test_what_may_not_be_looked_at(datasets, folder):
    dataset = new_dataset(datasets)
    outside = refusal(validate, datasets, dataset, path=Path("/etc"))
    assert outside.code is grpc.StatusCode.PERMISSION_DENIED
    elsewhere = refusal(validate, datasets, dataset, uri="s3://someone/data")
    assert (elsewhere.code, elsewhere.reason) == (grpc.StatusCode.PERMISSION_DENIED, "IMPORT_LOCATION_NOT_ALLOWED")
    assert "ENXERTO_TRAINING_IMPORT_LOCATIONS" in elsewhere.message
    for uri in ("http://example.com/data", "s3://", "s3://bucket/a?b=c", "file:///etc"):
        assert set(refusal(start_import, datasets, dataset, uri=uri).violations) == {"snapshot.source.uri"}
        assert set(refusal(validate, datasets, dataset, uri=uri).violations) == {"source.uri"}
    missing = refusal(validate, datasets, "projects/default/datasets/nowhere", path=folder)
    assert missing.code is grpc.StatusCode.NOT_FOUND
