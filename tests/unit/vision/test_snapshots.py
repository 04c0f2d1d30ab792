import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.kernel.errors import DataLossError
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.scans import Scan
from enxerto.vision.snapshots import FolderBlobs, Manifest, read_manifest, read_samples, write_snapshot
from enxerto.vision.specs import Split
from fakes.datasets import (
    Scenes,
    classification_scenes,
    detection_scenes,
    segmentation_scenes,
    snapshot_of,
    style_scenes,
)


@pytest.fixture
def scanned(tmp_path: Path) -> Scan:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for index in range(20):
            file = tmp_path / "data" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(file)
    return scan(tmp_path / "data")


def test_what_is_written_is_read(scanned: Scan, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    written, sha256 = write_snapshot(scanned, blobs)
    manifest = read_manifest(blobs, sha256)
    assert manifest == written
    for split in Split:
        expected = [
            (sample.path, sample.label, (scanned.root / sample.path).read_bytes())
            for sample in scanned.samples
            if sample.split is split
        ]
        read = [(image.path, image.annotation.label, image.data) for image in read_samples(manifest, blobs, split)]
        assert read == expected
        assert all((one.width, one.height) == (24, 16) for one in read_samples(manifest, blobs, split))
        assert manifest.count(split) == len(expected)


def test_the_digest_depends_on_the_content_only(scanned: Scan, tmp_path: Path) -> None:
    one, _ = write_snapshot(scanned, FolderBlobs(tmp_path / "a"))
    reordered = dataclasses.replace(scanned, samples=tuple(reversed(scanned.samples)))
    two, _ = write_snapshot(reordered, FolderBlobs(tmp_path / "b"), shard_bytes=3000)
    assert len(two.shards) > len(one.shards)
    assert one.digest == two.digest
    first, *others = scanned.samples
    moved = dataclasses.replace(scanned, samples=(dataclasses.replace(first, label=1 - first.label), *others))
    assert write_snapshot(moved, FolderBlobs(tmp_path / "c"))[0].digest != one.digest


def test_the_same_data_is_stored_once(scanned: Scan, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    first = write_snapshot(scanned, blobs)
    count = len(list((tmp_path / "blobs").iterdir()))
    assert write_snapshot(scanned, blobs) == first
    assert len(list((tmp_path / "blobs").iterdir())) == count == len(first[0].shards) + 1


def test_a_scan_with_errors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="errors"):
        write_snapshot(scan(tmp_path), FolderBlobs(tmp_path / "blobs"))


def test_an_image_that_changes_during_the_import_is_refused(scanned: Scan, tmp_path: Path) -> None:
    (scanned.root / scanned.samples[0].path).write_bytes(b"other")
    with pytest.raises(DataLossError, match="changed"):
        write_snapshot(scanned, FolderBlobs(tmp_path / "blobs"))


def test_damage_is_found(scanned: Scan, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    manifest, _ = write_snapshot(scanned, blobs)
    shard = tmp_path / "blobs" / manifest.shards[0].sha256
    whole = shard.read_bytes()
    image = (scanned.root / next(s.path for s in scanned.samples if s.split is Split.TRAIN)).read_bytes()
    shard.write_bytes(whole.replace(image[-20:], b"x" * 20))
    with pytest.raises(DataLossError, match="cannot be read"):
        list(read_samples(manifest, blobs, Split.TRAIN))
    shard.write_bytes(whole[:100])
    with pytest.raises(DataLossError, match="cannot be read"):
        list(read_samples(manifest, blobs, Split.TRAIN))
    shard.unlink()
    with pytest.raises(DataLossError, match="missing"):
        list(read_samples(manifest, blobs, Split.TRAIN))


def test_a_forged_manifest_is_refused(scanned: Scan, tmp_path: Path) -> None:
    manifest, _ = write_snapshot(scanned, FolderBlobs(tmp_path / "blobs"))
    with pytest.raises(DataLossError, match="digest"):
        Manifest.from_bytes(manifest.to_bytes().replace(b'"class_names":["ant"', b'"class_names":["fly"', 1))
    with pytest.raises(DataLossError):
        Manifest.from_bytes(b"{}")


@pytest.mark.parametrize(
    "scenes",
    [classification_scenes(4), detection_scenes(9), segmentation_scenes(4), style_scenes(3)],
    ids=lambda one: one.task,
)
def test_annotations_of_every_task_come_back(scenes: Scenes, tmp_path: Path) -> None:
    manifest, blobs = snapshot_of(scenes, tmp_path / "a")
    read = [sample for split in Split for sample in read_samples(manifest, blobs, split)]
    assert sorted(read, key=lambda one: one.path) == sorted(scenes.samples, key=lambda one: one.path)
    assert (manifest.task, manifest.class_names) == (scenes.task, scenes.class_names)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.statistics.image_count == len(scenes.samples)
    again, _ = snapshot_of(dataclasses.replace(scenes, samples=scenes.samples[::-1]), tmp_path / "b")
    assert again == manifest


def test_another_box_is_another_snapshot(tmp_path: Path) -> None:
    scenes = detection_scenes(4)
    first, *rest = scenes.samples
    box = dataclasses.replace(first.annotation.boxes[0], crowd=True)
    changed = dataclasses.replace(first, annotation=dataclasses.replace(first.annotation, boxes=(box,)))
    other = dataclasses.replace(scenes, samples=(changed, *rest))
    assert snapshot_of(scenes, tmp_path / "a")[0].digest != snapshot_of(other, tmp_path / "b")[0].digest
