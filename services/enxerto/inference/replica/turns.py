"""Who does a replica's work: the thread that has the call, as far as can be.

To hand work to another thread and its result back costs twice what it takes a core to wake up, and caches: 0.3 ms
beside a graph of 10.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class InTurn:
    """Runs in the thread that asks, once the work of the others has ended."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do it now."""
        with self._turn:
            return work(*arguments)


class OneThread:
    """Runs everything in a thread of its own: CUDA keeps what it needs for each thread that calls it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "compute")

    def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do it, and wait for it."""
        return self._thread.submit(work, *arguments).result()


class SideBySide:
    """Runs the parts of a call at once, the first in the thread that calls; of all callers' parts so many at a time."""

    def __init__(self, threads: int) -> None:
        self._places = threading.BoundedSemaphore(threads)
        self._others = ThreadPoolExecutor(threads, "pixels")

    def map(self, work: Callable[[S], T], parts: Sequence[S]) -> list[T]:
        """The results in order."""
        others = [self._others.submit(self._run, work, part) for part in parts[1:]]
        return [self._run(work, part) for part in parts[:1]] + [other.result() for other in others]

    def _run(self, work: Callable[[S], T], part: S) -> T:
        with self._places:
            return work(part)
