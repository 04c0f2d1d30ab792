"""Compare an exported network with the one that it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.contracts import EMBEDDING, MIN_AGREEMENT, Outputs
from enxerto.vision.images import Float32Images
from enxerto.vision.specs import Task

BATCH_SIZES: Final = (1, 2, 8)

_SAME_BOX: Final = 0.95
_SAME_COLOUR: Final = 2 / 255
_TIE: Final = 1e-4
_SAME_EMBEDDING: Final = 1e-3

Network = Callable[[Float32Images], Outputs]
_Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two networks agree on the same images.

    Attributes:
        task: of both.
        max_abs_difference: largest difference of any probability, score or colour in [0, 1], at any batch size.
        agreement: share of equal answers, in [0, 1]: images with the same top-1 class and, where the graph gives it, an
            embedding that lies within a thousandth of its length; boxes of the same label that overlap by 0.95;
            pixels of the same class; colours within 2/255.
        samples: images compared, at every batch size.
        batch_sizes: that both networks were run with.
    """

    task: Task
    max_abs_difference: float
    agreement: float
    samples: int
    batch_sizes: tuple[int, ...]

    @property
    def passes(self) -> bool:
        """Whether the gate is met."""
        return self.agreement >= MIN_AGREEMENT[self.task]


def compare(
    task: Task,
    reference: Network,
    exported: Network,
    images: Float32Images,
    batch_sizes: Iterable[int] = BATCH_SIZES,
) -> Parity:
    """Run both on the same (N, 3, H, W) float32 images in [0, 1], in batches of each size.

    The reference answers once, in batches of the largest size: an export that is wrong at one batch size only, or that
    mixes up the rows of a batch, differs from it.

    Raises:
        ValueError: there are no images, or the exported network's answers have another shape.
    """
    sizes = tuple(batch_sizes)
    if len(images) == 0:
        raise ValueError("parity needs images")
    expected = _in_batches(reference, images, max(sizes))
    difference, equal, total = 0.0, 0.0, 0.0
    for size in sizes:
        actual = _in_batches(exported, images, size)
        for name, values in expected.items():
            if actual[name].shape != values.shape:
                raise ValueError(f"the exported network's {name} are {actual[name].shape}, expected {values.shape}")
        gap, same, of = _AGREE[task](expected, actual)
        difference, equal, total = max(difference, gap), equal + same, total + of
    return Parity(task, difference, equal / total if total else 1.0, len(images), sizes)


def _in_batches(network: Network, images: Float32Images, size: int) -> _Arrays:
    parts = [network(images[start : start + size]) for start in range(0, len(images), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _gap(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    gaps = np.abs(actual.astype(np.float64) - expected)
    # NaN compares as unequal and would otherwise pass as the largest difference of nothing.
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0))


def _classification(expected: _Arrays, actual: _Arrays) -> tuple[float, float, float]:
    ours, theirs = expected["probabilities"], actual["probabilities"]
    same = (ours.argmax(axis=1) == theirs.argmax(axis=1)) & np.isfinite(theirs).all(axis=1)
    if EMBEDDING.name in expected:
        same &= _near(expected[EMBEDDING.name], actual[EMBEDDING.name])
    return _gap(ours, theirs), float(same.sum()), len(ours)


def _near(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows lie so near to ours that it makes no difference; NaN is not near to anything."""
    lengths = np.linalg.norm(ours, axis=1)
    near: npt.NDArray[np.bool_] = np.linalg.norm(theirs - ours, axis=1) <= _SAME_EMBEDDING * np.maximum(lengths, 1e-6)
    return near


def _segmentation(expected: _Arrays, actual: _Arrays) -> tuple[float, float, float]:
    same = expected["classes"] == actual["classes"]
    return _gap(expected["confidence"], actual["confidence"]), float(same.sum()), same.size


def _style(expected: _Arrays, actual: _Arrays) -> tuple[float, float, float]:
    ours, theirs = expected["pictures"], actual["pictures"]
    # NaN is not close to anything.
    same = np.abs(theirs.astype(np.float64) - ours) <= _SAME_COLOUR
    return _gap(ours, theirs), float(same.sum()), same.size


def _detection(expected: _Arrays, actual: _Arrays) -> tuple[float, float, float]:
    difference, equal, total = 0.0, 0.0, 0.0
    for row in range(len(expected["boxes"])):
        ours = {name: values[row][expected["classes"][row] >= 0] for name, values in expected.items()}
        theirs = {name: values[row][actual["classes"][row] >= 0] for name, values in actual.items()}
        pairs = _pairs(ours, theirs)
        if pairs:
            left, right = (list(side) for side in zip(*pairs, strict=True))
            difference = max(difference, _gap(ours["scores"][left], theirs["scores"][right]))
        lost = _lost(ours["scores"], {one for one, _ in pairs}) + _lost(theirs["scores"], {one for _, one in pairs})
        equal += 2 * len(pairs)
        total += 2 * len(pairs) + lost
    return difference, equal, total


def _pairs(ours: _Arrays, theirs: _Arrays) -> list[tuple[int, int]]:
    """Boxes of the same label that overlap enough, those that overlap most first, no box twice."""
    overlaps = _iou(ours["boxes"], theirs["boxes"])
    overlaps[ours["classes"][:, None] != theirs["classes"][None, :]] = 0
    lefts, rights = np.nonzero(overlaps >= _SAME_BOX)
    order = np.argsort(-overlaps[lefts, rights], kind="stable")
    used_left: set[int] = set()
    used_right: set[int] = set()
    pairs = []
    for left, right in zip(lefts[order].tolist(), rights[order].tolist(), strict=True):
        if left not in used_left and right not in used_right:
            pairs.append((left, right))
            used_left.add(left)
            used_right.add(right)
    return pairs


def _lost(scores: npt.NDArray[Any], found: set[int]) -> int:
    """Boxes without a partner; one that ties with the last may as well have been cut off on the other side."""
    floor = float(scores.min(initial=np.inf)) + _TIE
    return sum(1 for place, score in enumerate(scores) if place not in found and not score <= floor)


def _iou(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    one, other = ours.astype(np.float64)[:, None], theirs.astype(np.float64)[None]
    sides = np.clip(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    area = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - shared
    overlap: npt.NDArray[np.float64] = shared / np.maximum(area, 1e-9)
    return overlap


_AGREE: Final = {
    Task.CLASSIFICATION: _classification,
    Task.DETECTION: _detection,
    Task.SEGMENTATION: _segmentation,
    Task.STYLE: _style,
}
