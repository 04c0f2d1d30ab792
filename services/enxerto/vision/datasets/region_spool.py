"""Regions on disk: of half a million objects memory holds only where each begins."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.datasets.rasters import Region
from enxerto.vision.datasets.scans import Mask, MaskError

_POLYGONS: Final = 0
_RUNS: Final = 1
_TEXT: Final = 2
_HEADER_WORDS: Final = 4


class RegionSpool:
    """The regions of many pictures, in a file that has no name and is gone with the last who refers to it."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="enxerto-regions-")
        Path(name).unlink()
        self._descriptor = descriptor
        self._file = open(descriptor, "wb", closefd=False)  # noqa: SIM115 - it lives as long as the spool
        weakref.finalize(self, os.close, descriptor)
        self._pictures = array("q")
        self._areas = array("d")
        self._lines = array("q")
        self._bounds = array("q", [0])

    def add(self, picture: int, area: float, region: Region, line: int) -> None:
        """Keep a region of a picture, which is a number from 0.

        Args:
            picture: that it is of.
            area: in whatever unit its picture's other regions have.
            region: what is drawn.
            line: that it begins on in its annotation file, from 1.

        Raises:
            OverflowError: a run length is beyond 64 bits.
        """
        written = self._file.write(_to_bytes(region))
        self._pictures.append(picture)
        self._areas.append(area)
        self._lines.append(line)
        self._bounds.append(self._bounds[-1] + written)

    def masks(self, paths: Sequence[str]) -> Iterator[SpooledMask]:
        """The masks of all pictures, with the annotation file of each; nothing may be added afterwards.

        Large objects are drawn first, so that a small one before a large one stays visible; of two alike the one that
        was added first.
        """
        self._file.flush()
        owners = np.frombuffer(self._pictures, np.int64) if self._pictures else np.empty(0, np.int64)
        areas = np.frombuffer(self._areas, np.float64) if self._areas else np.empty(0, np.float64)
        order = np.lexsort((-areas, owners))
        firsts = np.searchsorted(owners[order], np.arange(len(paths) + 1)).tolist()
        for picture, path in enumerate(paths):
            yield SpooledMask(path, self, order, firsts[picture], firsts[picture + 1])

    def read(self, number: int) -> Region:
        """The region that was added as the `number`-th, from 0; from any thread."""
        first, last = self._bounds[number], self._bounds[number + 1]
        return _from_bytes(os.pread(self._descriptor, last - first, first))

    def line(self, number: int) -> int:
        """That it begins on."""
        return self._lines[number]


@dataclass(frozen=True, slots=True, eq=False)
class SpooledMask:
    """Regions of a spool drawn over background (0), later ones on top.

    Attributes:
        path: the annotation file.
        spool: where the regions are.
        order: numbers of regions, in drawing order, of all pictures.
        first: where this picture's begin in `order`.
        last: where they end.
    """

    path: str
    spool: RegionSpool
    order: npt.NDArray[np.int64]
    first: int
    last: int

    @property
    def empty(self) -> bool:
        """Whether the picture has no region."""
        return self.first == self.last

    def render(self, width: int, height: int) -> Mask:
        """The mask of a picture of this size; raises MaskError."""
        mask = np.zeros((height, width), dtype=np.uint8)
        for number in self.order[self.first : self.last].tolist():
            region = self.spool.read(number)
            try:
                mask[region.pixels(width, height)] = region.label
            except MaskError as problem:
                raise MaskError(problem.code, str(problem), self.spool.line(number)) from problem
        return mask


def _to_bytes(region: Region) -> bytes:
    """Four words (label, kind, and two that depend on the kind), then the points or the run lengths."""
    if region.counts is None:
        sizes = _words(ring.size for ring in region.polygons)
        rings = b"".join(ring.tobytes() for ring in region.polygons)
        return _words((region.label, _POLYGONS, len(region.polygons), region.relative)) + sizes + rings
    if isinstance(region.counts, bytes):
        return _words((region.label, _TEXT, *region.size)) + region.counts
    return _words((region.label, _RUNS, *region.size)) + _words(region.counts)


def _words(values: Iterable[int]) -> bytes:
    return array("q", values).tobytes()


def _from_bytes(data: bytes) -> Region:
    words = np.frombuffer(data, np.int64, _HEADER_WORDS)
    label, kind, one, other = words.tolist()
    body = data[words.nbytes :]
    if kind == _TEXT:
        return Region(label, counts=body, size=(one, other))
    if kind == _RUNS:
        return Region(label, counts=tuple(np.frombuffer(body, np.int64).tolist()), size=(one, other))
    sizes = np.frombuffer(body, np.int64, one)
    points = np.frombuffer(body, np.float64, offset=sizes.nbytes)
    return Region(label, tuple(np.split(points, np.cumsum(sizes)[:-1])), relative=bool(other))
