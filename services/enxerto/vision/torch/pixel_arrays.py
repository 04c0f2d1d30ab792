"""Pixels that are decoded once: by several threads, into memory or into a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from enxerto.kernel.cores import usable_cores
from enxerto.kernel.errors import DataLossError

MEMORY_BYTES: Final = 384 * 1024**2
"""Larger arrays go to a file."""

_IN_FLIGHT_PER_THREAD: Final = 4

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

_Item = TypeVar("_Item")
_Decoded = TypeVar("_Decoded")


class PixelFile:
    """An array of uint8 in a file without a name, which vanishes with the object; rows are read and written whole.

    Read, not mapped: mapped pages count as the process's own memory, and a run over many pictures would seem to need
    all of it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._row_bytes = int(np.prod(shape[1:]))
        self._file, name = tempfile.mkstemp(prefix="enxerto-pixels-")
        weakref.finalize(self, os.close, self._file)
        Path(name).unlink()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Indices | slice) -> Pixels:
        chosen = np.arange(len(self))[rows]
        batch = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for target, row in zip(batch.reshape(len(batch), -1), chosen.tolist(), strict=True):
            done = os.preadv(self._file, [target.data], row * self._row_bytes)
            if done != self._row_bytes:
                raise DataLossError("the decoded pictures on the local disk are cut off: is the disk full?")
        return batch

    def __setitem__(self, rows: slice, pixels: Pixels) -> None:
        rest = np.ascontiguousarray(pixels).data.cast("B")
        offset = rows.start * self._row_bytes
        while rest:
            done = os.pwrite(self._file, rest, offset)
            rest, offset = rest[done:], offset + done


def allocate(shape: tuple[int, ...], memory_bytes: int = MEMORY_BYTES) -> Pixels | PixelFile:
    """An array of uint8 with any content, in memory or, above `memory_bytes`, in a file."""
    return np.empty(shape, np.uint8) if int(np.prod(shape)) <= memory_bytes else PixelFile(shape)


def decode_in_order(
    items: Iterable[_Item], decode: Callable[[_Item], _Decoded], threads: int | None = None
) -> Iterator[_Decoded]:
    """What `decode` makes of each item, in order; a few items for each thread are in memory at a time."""
    count = threads or usable_cores()
    running: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="decode") as pool:
        for item in items:
            running.append(pool.submit(decode, item))
            if len(running) >= count * _IN_FLIGHT_PER_THREAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
