"""Pixels that are decoded once: by several threads, into memory or into a file."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

MEMORY_BYTES: Final = 2 * 1024**3
"""Larger arrays go to a file."""

_IN_FLIGHT_PER_THREAD: Final = 4

_Item = TypeVar("_Item")
_Decoded = TypeVar("_Decoded")


def allocate(shape: tuple[int, ...], memory_bytes: int = MEMORY_BYTES) -> npt.NDArray[np.uint8]:
    """An array of uint8 with any content.

    Above `memory_bytes` it is a temporary file, which the operating system pages and which vanishes with the array.

    Raises:
        OSError: the disk has no room for it.
    """
    if int(np.prod(shape)) <= memory_bytes:
        return np.empty(shape, dtype=np.uint8)
    handle, name = tempfile.mkstemp(prefix="enxerto-pixels-")
    try:
        if sys.platform != "darwin":
            # A file with holes would end the process by a signal once the disk is full.
            os.posix_fallocate(handle, 0, int(np.prod(shape)))
        return np.memmap(name, dtype=np.uint8, mode="r+", shape=shape)
    finally:
        os.close(handle)
        # The mapping keeps the file alive; without a name it cannot be left behind.
        Path(name).unlink()


def decode_in_order(
    items: Iterable[_Item], decode: Callable[[_Item], _Decoded], threads: int | None = None
) -> Iterator[_Decoded]:
    """What `decode` makes of each item, in order; a few items for each thread are in memory at a time."""
    count = threads or os.cpu_count() or 1
    running: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="decode") as pool:
        for item in items:
            running.append(pool.submit(decode, item))
            if len(running) >= count * _IN_FLIGHT_PER_THREAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
