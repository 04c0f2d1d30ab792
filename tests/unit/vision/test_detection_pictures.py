"""Pictures with boxes on their way to the network: where boxes go, and what an epoch is made of."""

from pathlib import Path

import numpy as np
import torch

from enxerto.vision.datasets.samples import Annotation, Box, StoredSample
from enxerto.vision.finetuning import AugmentationSpec, AugmentPolicy, FinetuneSpec, Weights
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import LETTERBOX_GREY, PreprocessSpec, Resize, Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.detection.augmentation import BoxedAugmentation
from enxerto.vision.torch.detection.boxed_pictures import BoxedPictures, load_boxed
from enxerto.vision.torch.detection.detector import Detector
from enxerto.vision.torch.detection.learner import DetectionData, DetectionLearner
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.pixel_arrays import PixelFile
from fakes.datasets import detection_scenes, snapshot_of, write_snapshot_of

PREPROCESS = PreprocessSpec(64, 64, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Resize.LETTERBOX)


def wide_snapshot(folder: Path) -> tuple[Manifest, FolderBlobs]:
    """Pictures twice as wide as high, with a real object, one too small to see, and a crowd."""
    import io

    from PIL import Image

    pixels = np.full((100, 200, 3), 20, np.uint8)
    pixels[20:60, 40:120] = (250, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    boxes = (Box(0, 40, 20, 120, 60), Box(1, 0, 0, 2, 2), Box(1, 150, 0, 200, 100, crowd=True))
    samples = [
        StoredSample(f"{number}.png", split, 200, 100, file.getvalue(), Annotation(boxes=boxes))
        for number, split in enumerate((Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.VAL))
    ]
    return write_snapshot_of(samples, Task.DETECTION, ("a", "b"), folder)


def red(image: torch.Tensor) -> tuple[int, int, int, int]:
    """Bounds of what is red in a (3, H, W) uint8 picture."""
    rows, columns = torch.where((image[0] > 130) & (image[1] < 100) & (image[2] < 100))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_boxes_lie_on_their_objects_in_the_letterbox(tmp_path: Path) -> None:
    manifest, blobs = wide_snapshot(tmp_path)
    part = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS)
    images, targets = part.batch(np.array([0, 1]))
    assert images.shape == (2, 3, 64, 64)
    assert (images[0, :, 0, 0] == LETTERBOX_GREY).all()
    # 0.32 of the size, 16 rows of grey above. Neither the crowd nor what is below a pixel is to be found.
    assert targets[0]["labels"].tolist() == [0]
    np.testing.assert_allclose(targets[0]["boxes"], [[12.8, 22.4, 38.4, 35.2]], atol=1e-4)
    np.testing.assert_allclose(red(images[0]), targets[0]["boxes"][0], atol=1.5)
    assert len(part.truth) == 3
    assert part.truth[0].boxes[0].tolist() == [40, 20, 120, 60]
    assert part.truth[0].crowd.tolist() == [False, False, True]


def test_each_worker_decodes_its_part_and_knows_all_the_truth(tmp_path: Path) -> None:
    manifest, blobs = wide_snapshot(tmp_path)
    first, second = (load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS, rank=rank, world_size=2) for rank in (0, 1))
    assert (first.indices.tolist(), second.indices.tolist()) == ([0, 2], [1])
    assert len(first.truth) == len(second.truth) == first.total == 3


def test_large_splits_lie_in_a_file(tmp_path: Path) -> None:
    manifest, blobs = wide_snapshot(tmp_path)
    part = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS, memory_bytes=10)
    assert isinstance(part.images, PixelFile)
    whole = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS)
    assert (part.images[:] == whole.images).all()
    assert torch.equal(part.batch(np.array([2, 0]))[0], whole.batch(np.array([2, 0]))[0])


def test_boxes_follow_the_augmented_picture(tmp_path: Path) -> None:
    manifest, blobs = wide_snapshot(tmp_path)
    images, targets = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS).batch(np.array([0]))
    augment, seen = BoxedAugmentation(PREPROCESS), set()
    for seed in range(30):
        varied, known = augment(images, targets, seed)
        assert varied.shape == images.shape
        assert varied.dtype == torch.uint8
        assert len(known[0]["boxes"]) == len(known[0]["labels"])
        for box in known[0]["boxes"]:
            np.testing.assert_allclose(red(varied[0]), box, atol=2.5)
            seen.add(tuple(box.round().tolist()))
    assert len(seen) > 10


def test_pictures_without_objects_are_varied_too() -> None:
    nothing = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)}
    varied, known = BoxedAugmentation(PREPROCESS)(torch.full((1, 3, 64, 64), 90, dtype=torch.uint8), [nothing], 0)  # type: ignore[list-item]
    assert varied.shape == (1, 3, 64, 64)
    assert known[0]["boxes"].shape == (0, 4)


class Nothing(Detector):
    """A detector that is not asked."""


def learner(part: BoxedPictures, *, rank: int = 0, world_size: int = 1, policy: AugmentPolicy) -> DetectionLearner:
    spec = FinetuneSpec.with_defaults(
        "ssdlite", task=Task.DETECTION, weights=Weights.NONE, augmentation=AugmentationSpec(policy=policy)
    )
    where = object.__new__(Distribution)
    for name, value in {"rank": rank, "world_size": world_size, "local_rank": 0, "local_world_size": 1}.items():
        object.__setattr__(where, name, value)
    data = DetectionData(("a", "b"), PREPROCESS, part, part)
    return DetectionLearner(Nothing(PREPROCESS), data, spec, where=where, compute=Compute("cpu", None, 1))


def test_an_epoch_can_be_seen_again(tmp_path: Path) -> None:
    manifest, blobs = snapshot_of(detection_scenes(12), tmp_path)
    part = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS)
    one = [list(learner(part, policy=AugmentPolicy.LIGHT).batches(epoch, 4)) for epoch in (1, 2)]
    again = list(learner(part, policy=AugmentPolicy.LIGHT).batches(2, 4))
    for ((images, targets), count), ((same, known), same_count) in zip(one[1], again, strict=True):
        assert count == same_count == len(images) == len(targets) == 4
        assert images.equal(same)
        assert all(a["boxes"].equal(b["boxes"]) for a, b in zip(targets, known, strict=True))
    assert not one[0][0][0][0].equal(one[1][0][0][0])


def test_workers_with_parts_of_different_size_have_as_many_batches(tmp_path: Path) -> None:
    manifest, blobs = wide_snapshot(tmp_path)
    counts = []
    for rank in (0, 1):
        part = load_boxed(manifest, blobs, Split.TRAIN, PREPROCESS, rank=rank, world_size=2)
        mine = learner(part, rank=rank, world_size=2, policy=AugmentPolicy.NONE)
        sizes = [count for _, count in mine.batches(1, 2)]
        assert len(sizes) == mine.batch_count(2)
        counts.append(sizes)
    assert counts == [[2], [2]]
