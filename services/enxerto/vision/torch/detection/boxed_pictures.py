"""The pictures and boxes of a split as arrays: decoded once, one part for each worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.detection_metrics import Objects
from enxerto.vision.geometry import Placement
from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits, UInt8Image, load_placed
from enxerto.vision.snapshots import Manifest, read_samples
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.detection.detector import Target
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES, PixelFile, Pixels, allocate, decode_in_order

_SMALLEST: Final = 1.0
"""Pixels of the input; a box with a shorter side shows nothing that could be learned."""


@dataclass(frozen=True, slots=True)
class BoxedPictures:
    """This worker's part of a split: every `world_size`-th sample.

    Attributes:
        images: (n, H, W, 3), uint8, RGB.
        objects: of each image, in input pixels.
        placements: of each image.
        indices: (n,), int64, positions in the whole split.
        truth: of every picture of the split, in picture pixels; on every worker.
    """

    images: Pixels | PixelFile
    objects: tuple[Objects, ...]
    placements: tuple[Placement, ...]
    indices: npt.NDArray[np.int64]
    truth: tuple[Objects, ...]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def total(self) -> int:
        """Samples of the whole split."""
        return len(self.truth)

    def batch(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, list[Target]]:
        """(n, 3, H, W) uint8 images, and what is to be found in each: no crowds, nothing below a pixel."""
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows])).permute(0, 3, 1, 2)
        return images, [to_target(self.objects[row]) for row in rows]


def to_target(objects: Objects) -> Target:
    """What a loss is given."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    kept = ~objects.crowd & (sides >= _SMALLEST).all(axis=1)
    return {
        "boxes": torch.from_numpy(objects.boxes[kept].astype(np.float32)),
        "labels": torch.from_numpy(objects.labels[kept]),
    }


def objects_of(sample: StoredSample) -> Objects:
    """The boxes of a sample, in picture pixels."""
    boxes = sample.annotation.boxes
    return Objects(
        np.array([(one.x_min, one.y_min, one.x_max, one.y_max) for one in boxes], np.float64).reshape(-1, 4),
        np.array([one.label for one in boxes], np.int64),
        np.array([one.crowd for one in boxes], np.bool_),
    )


def load_boxed(
    manifest: Manifest,
    source: BlobSource,
    split: Split,
    spec: PreprocessSpec,
    *,
    rank: int = 0,
    world_size: int = 1,
    limits: ImageLimits = DEFAULT_LIMITS,
    memory_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BoxedPictures:
    """Decode every `world_size`-th sample of a split, from `rank` on; `progress` is told (done, total).

    Above `memory_bytes` the pixels go to the local disk; later epochs never decode again.

    Raises:
        ImageError: a picture cannot be decoded.
        DataLossError: the snapshot is damaged.
    """
    total = manifest.count(split)
    mine = len(range(rank, total, world_size))
    images = allocate((mine, spec.height, spec.width, 3), memory_bytes)
    truth: list[Objects] = []
    objects: list[Objects] = []
    placements: list[Placement] = []

    def noted() -> Iterator[StoredSample]:
        for sample in read_samples(manifest, source, split):
            truth.append(objects_of(sample))
            yield sample

    def decode(sample: StoredSample) -> tuple[UInt8Image, Placement, Objects]:
        image, placed = load_placed(sample.data, spec, limits)
        return image, placed, objects_of(sample)

    decoded = decode_in_order(islice(noted(), rank, None, world_size), decode, threads)
    for row, (image, placed, known) in enumerate(decoded):
        images[row : row + 1] = image
        placements.append(placed)
        objects.append(Objects(placed.boxes_to_input(known.boxes), known.labels, known.crowd))
        if progress is not None:
            progress(row + 1, mine)
    indices = np.arange(rank, total, world_size, dtype=np.int64)
    return BoxedPictures(images, tuple(objects), tuple(placements), indices, tuple(truth))
