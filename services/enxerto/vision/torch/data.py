"""The images of a split as arrays: decoded once, in memory or in a file, one part per worker."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import v2

from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits, load
from enxerto.vision.snapshots import BlobSource, EncodedImage, Manifest, read_images
from enxerto.vision.specs import PreprocessSpec, Split

_MEMORY_BYTES: Final = 2 * 1024**3
_IN_FLIGHT_PER_THREAD: Final = 8


@dataclass(frozen=True, slots=True)
class ImageArray:
    """This worker's part of a split: every `world_size`-th sample.

    Attributes:
        images: (n, H, W, 3), uint8, RGB; a memory-mapped file when it is large.
        labels: (n,), int64.
        indices: (n,), int64, positions in the whole split.
        total: samples of the whole split.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    total: int

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: npt.NDArray[np.int64] | slice) -> torch.Tensor:
        """(n, 3, H, W), uint8, of some rows."""
        return torch.from_numpy(np.ascontiguousarray(self.images[rows])).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class FinetuneData:
    """What a run trains on and selects by.

    Attributes:
        class_names: in label order.
        preprocess: that made the images.
        train: as the network sees them in serving.
        val: likewise.
        canvas: the training images with a margin to crop from; None without augmentation.
    """

    class_names: tuple[str, ...]
    preprocess: PreprocessSpec
    train: ImageArray
    val: ImageArray
    canvas: ImageArray | None = None


def load_data(
    manifest: Manifest,
    source: BlobSource,
    preprocess: PreprocessSpec,
    *,
    augment: bool = False,
    rank: int = 0,
    world_size: int = 1,
    limits: ImageLimits = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FinetuneData:
    """Decode this worker's part of the training and validation splits; `progress` is told (done, total)."""
    splits = [(Split.TRAIN, preprocess), (Split.VAL, preprocess)]
    if augment:
        splits.append((Split.TRAIN, canvas_spec(preprocess)))
    total = sum(manifest.count(split) // world_size for split, _ in splits)
    arrays: list[ImageArray] = []
    for split, spec in splits:
        before = sum(len(array) for array in arrays)

        def shift(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, max(total, before + done))

        arrays.append(
            load_split(
                manifest,
                source,
                split,
                spec,
                rank=rank,
                world_size=world_size,
                limits=limits,
                threads=threads,
                progress=shift,
            )
        )
    return FinetuneData(manifest.class_names, preprocess, arrays[0], arrays[1], arrays[2] if augment else None)


def canvas_spec(spec: PreprocessSpec) -> PreprocessSpec:
    """The whole resized square that the centre crop of `spec` is cut from."""
    return replace(
        spec,
        height=round(spec.height / spec.crop_fraction),
        width=round(spec.width / spec.crop_fraction),
        crop_fraction=1.0,
    )


def load_split(
    manifest: Manifest,
    source: BlobSource,
    split: Split,
    spec: PreprocessSpec,
    *,
    rank: int = 0,
    world_size: int = 1,
    limits: ImageLimits = DEFAULT_LIMITS,
    memory_bytes: int = _MEMORY_BYTES,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageArray:
    """Decode every `world_size`-th image of a split, from `rank` on.

    Above `memory_bytes` the pixels go to a temporary file, which the operating system pages and which vanishes with
    the array; so later epochs never decode again.

    Raises:
        ImageError: an image cannot be decoded.
        DataLossError: the snapshot is damaged.
    """
    total = manifest.count(split)
    mine = len(range(rank, total, world_size))
    images = _allocate((mine, spec.height, spec.width, 3), memory_bytes)
    labels = np.empty(mine, dtype=np.int64)
    part = islice(read_images(manifest, source, split), rank, None, world_size)
    for row, (label, pixels) in enumerate(_decode_all(part, spec, limits, threads)):
        images[row], labels[row] = pixels, label
        if progress is not None:
            progress(row + 1, mine)
    return ImageArray(images, labels, np.arange(rank, total, world_size, dtype=np.int64), total)


def _allocate(shape: tuple[int, ...], memory_bytes: int) -> npt.NDArray[np.uint8]:
    if int(np.prod(shape)) <= memory_bytes:
        return np.empty(shape, dtype=np.uint8)
    handle, name = tempfile.mkstemp(prefix="enxerto-images-")
    os.close(handle)
    pixels = np.memmap(name, dtype=np.uint8, mode="w+", shape=shape)
    # The mapping keeps the file alive; without a name it cannot be left behind.
    Path(name).unlink()
    return pixels


def _decode_all(
    images: Iterator[EncodedImage], spec: PreprocessSpec, limits: ImageLimits, threads: int | None
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    count = threads or os.cpu_count() or 1
    running: deque[tuple[int, Future[npt.NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="decode") as pool:
        for image in images:
            running.append((image.label, pool.submit(load, image.data, spec, limits)))
            if len(running) >= count * _IN_FLIGHT_PER_THREAD:
                label, future = running.popleft()
                yield label, future.result()
        while running:
            label, future = running.popleft()
            yield label, future.result()


class Augmentation:
    """Random crop, flip and colour: (n, 3, H', W') uint8 canvases to (n, 3, H, W) uint8.

    Milder than RandAugment (Cubuk et al. 2019, arXiv:1909.13719), because small datasets have no slack to learn that
    a heavily distorted picture is the same class.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop((spec.height, spec.width), scale=(0.5, 1.0), ratio=(0.8, 1.25), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            ]
        )

    def __call__(self, canvases: torch.Tensor, generator_seed: int) -> torch.Tensor:
        """Each image gets draws of its own, decided by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_seed)
            return torch.stack([self._transform(canvas) for canvas in canvases])
