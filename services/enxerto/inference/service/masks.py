"""Masks read back from the answers that describe them by class, as run lengths or as outlines."""

import numpy as np
import numpy.typing as npt

from enxerto.inference.domain import Outline, PictureAnswer, Segment
from enxerto.vision.contracts import IGNORED


def drawn(picture: PictureAnswer) -> npt.NDArray[np.uint8]:
    """The class of every pixel, (height, width); `IGNORED` where there is none."""
    mask = np.full((picture.height, picture.width), IGNORED, np.uint8)
    for segment in picture.segments:
        mask[_pixels(segment, picture.height, picture.width)] = segment.index
    return mask


def _pixels(segment: Segment, height: int, width: int) -> npt.NDArray[np.bool_]:
    if segment.outlines:
        return _enclosed(segment.outlines, height, width)
    return np.repeat(*_runs(segment.rle)).reshape(width, height).T


def _runs(text: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether each run of COCO's compressed text lies in the mask, and its length; see `replica.run_lengths`."""
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(groups & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    places = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 0x1F) << places, starts)
    runs -= np.where(groups[ends] & 0x10, 1 << 5 * lengths, 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return np.arange(len(runs)) % 2 == 1, runs


def _enclosed(outlines: tuple[Outline, ...], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The pixels within rings of pixel edges: those with an odd number of upright edges to their left."""
    edges = np.zeros((height + 1, width + 1), np.int64)
    for outline in outlines:
        x, y = np.array(outline.points).astype(np.int64).reshape(-1, 2).T
        then = np.roll(y, -1)
        upright = np.roll(x, -1) == x
        columns, first, last = x[upright], np.minimum(y, then)[upright], np.maximum(y, then)[upright]
        np.add.at(edges, (first, columns), 1)
        np.add.at(edges, (last, columns), -1)
    crossings = edges.cumsum(axis=0).cumsum(axis=1)[:height, :width]
    odd: npt.NDArray[np.bool_] = crossings % 2 == 1
    return odd
