"""The labelled images of a split: decoded as they are read, or once and kept, one part per worker."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import ImageLimits, UInt8Image, load
from enxerto.vision.snapshots import Manifest, read_samples
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.collectives import Distribution

MEMORY_BYTES: Final = 384 * 1024**2
_IN_FLIGHT_PER_THREAD: Final = 8

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker's images come from and how they are decoded.

    Attributes:
        manifest: of the snapshot.
        blobs: its shards.
        where: this worker's place; it gets every `world_size`-th image.
        limits: of an image.
        threads: that decode.
    """

    manifest: Manifest
    blobs: BlobSource
    where: Distribution
    limits: ImageLimits
    threads: int

    def count(self, split: Split) -> int:
        """This worker's images of a split."""
        return len(self.indices(split))

    def indices(self, split: Split) -> range:
        """Their positions in the whole split."""
        return range(self.where.rank, self.manifest.count(split), self.where.world_size)

    def stream(self, split: Split, spec: PreprocessSpec, size: int) -> Iterator[tuple[Pixels, Indices]]:
        """Batches of (n, H, W, 3) pixels and (n,) labels, in order; nothing is kept.

        Raises:
            ImageError: an image cannot be decoded.
            DataLossError: the snapshot is damaged, or an image has no label.
        """
        samples = islice(read_samples(self.manifest, self.blobs, split), self.where.rank, None, self.where.world_size)
        decoded = _decode_all(samples, spec, self.limits, self.threads)
        while batch := list(islice(decoded, size)):
            yield np.stack([pixels for _, pixels in batch]), np.array([label for label, _ in batch], np.int64)


class Rows(Protocol):
    """Pixels of many images."""

    def read(self, rows: Indices) -> Pixels:
        """(n, H, W, 3) of some rows."""
        ...


class _MemoryRows:
    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def read(self, rows: Indices) -> Pixels:
        return self._pixels[rows]

    def write(self, first: int, pixels: Pixels) -> None:
        self._pixels[first : first + len(pixels)] = pixels


class _FileRows:
    """In a file without a name, which vanishes with the object.

    Read, not mapped: mapped pages count as the process's own memory, and a run over many images would seem to need
    all of it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._row_bytes = int(np.prod(shape))
        self._file, name = tempfile.mkstemp(prefix="enxerto-images-")
        weakref.finalize(self, os.close, self._file)
        Path(name).unlink()

    def read(self, rows: Indices) -> Pixels:
        batch = np.empty((len(rows), *self._shape), np.uint8)
        flat = batch.reshape(len(rows), -1)
        for target, row in zip(flat, rows.tolist(), strict=True):
            done = os.preadv(self._file, [target.data], row * self._row_bytes)
            if done != self._row_bytes:
                raise DataLossError("the decoded images on the local disk are cut off: is the disk full?")
        return batch

    def write(self, first: int, pixels: Pixels) -> None:
        rest = memoryview(np.ascontiguousarray(pixels).tobytes())
        offset = first * self._row_bytes
        while rest:
            done = os.pwrite(self._file, rest, offset)
            rest, offset = rest[done:], offset + done


@dataclass(frozen=True, slots=True)
class Images:
    """This worker's decoded part of a split.

    Attributes:
        rows: the pixels.
        labels: (n,), int64.
        total: images of the whole split.
    """

    rows: Rows
    labels: Indices
    total: int

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Indices) -> torch.Tensor:
        """(n, 3, H, W), uint8, of some rows."""
        return as_batch(self.rows.read(rows))


def as_batch(pixels: Pixels) -> torch.Tensor:
    """(n, H, W, 3) to (n, 3, H, W), uint8, without a copy."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)


def keep(
    source: Source,
    split: Split,
    spec: PreprocessSpec,
    *,
    progress: Callable[[int], None] = lambda _: None,
    memory_bytes: int = MEMORY_BYTES,
) -> Images:
    """Decode this worker's part of a split once; above `memory_bytes` it goes to the local disk.

    `progress` is told the number of images of each step.
    """
    count, shape = source.count(split), (spec.height, spec.width, 3)
    fits = count * int(np.prod(shape)) <= memory_bytes
    store = _MemoryRows(np.empty((count, *shape), np.uint8)) if fits else _FileRows(shape)
    labels: list[Indices] = [np.empty(0, np.int64)]
    done = 0
    for pixels, part in source.stream(split, spec, 32):
        store.write(done, pixels)
        labels.append(part)
        done += len(part)
        progress(len(part))
    return Images(store, np.concatenate(labels), source.manifest.count(split))


def canvas_spec(spec: PreprocessSpec) -> PreprocessSpec:
    """The whole resized square that the centre crop of `spec` is cut from."""
    height, width = round(spec.height / spec.crop_fraction), round(spec.width / spec.crop_fraction)
    return replace(spec, height=height, width=width, crop_fraction=1.0)


def _decode_all(
    samples: Iterator[StoredSample], spec: PreprocessSpec, limits: ImageLimits, threads: int
) -> Iterator[tuple[int, UInt8Image]]:
    running: deque[tuple[int, Future[UInt8Image]]] = deque()
    with _decoders(threads) as pool:
        for sample in samples:
            label = sample.annotation.label
            if label is None:
                raise DataLossError(f"image {sample.path!r} has no label")
            running.append((label, pool.submit(load, sample.data, spec, limits)))
            if len(running) >= threads * _IN_FLIGHT_PER_THREAD:
                label, future = running.popleft()
                yield label, future.result()
        while running:
            label, future = running.popleft()
            yield label, future.result()


@contextmanager
def _decoders(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        yield pool
    finally:
        # Whoever stops reading does not wait for what nobody will take.
        pool.shutdown(cancel_futures=True)
