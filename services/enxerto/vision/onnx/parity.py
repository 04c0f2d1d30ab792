"""Compare an exported network with the one that it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.images import Float32Images

PARITY_GATE: Final = 0.999
"""Smallest agreement of top-1 with which a version may be registered as ready."""

BATCH_SIZES: Final = (1, 2, 8)

Probabilities = npt.NDArray[np.float32]
Classifier = Callable[[Float32Images], Probabilities]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two networks agree on the same images.

    Attributes:
        max_abs_difference: largest difference of any probability, at any batch size.
        agreement: part of the answers with the same class, in [0, 1].
        samples: images compared, at every batch size.
        batch_sizes: that both networks were run with.
    """

    max_abs_difference: float
    agreement: float
    samples: int
    batch_sizes: tuple[int, ...]

    @property
    def passes(self) -> bool:
        """Whether the gate is met."""
        return self.agreement >= PARITY_GATE


def compare(
    reference: Classifier, exported: Classifier, images: Float32Images, batch_sizes: Iterable[int] = BATCH_SIZES
) -> Parity:
    """Run both on the same (N, 3, H, W) float32 images in [0, 1], in batches of each size.

    The reference answers once, in batches of the largest size: an export that is wrong at one batch size only, or that
    mixes up the rows of a batch, differs from it.

    Raises:
        ValueError: there are no images.
    """
    sizes = tuple(batch_sizes)
    if len(images) == 0:
        raise ValueError("parity needs images")
    expected = _in_batches(reference, images, max(sizes))
    difference, agreed = 0.0, 0
    for size in sizes:
        actual = _in_batches(exported, images, size)
        if actual.shape != expected.shape:
            raise ValueError(f"the exported network answers {actual.shape}, expected {expected.shape}")
        gaps = np.abs(actual.astype(np.float64) - expected)
        # NaN compares as unequal and would otherwise pass as the largest difference of nothing.
        difference = max(difference, float(np.nan_to_num(gaps, nan=np.inf).max()))
        finite = np.isfinite(actual).all(axis=1)
        agreed += int(((actual.argmax(axis=1) == expected.argmax(axis=1)) & finite).sum())
    return Parity(difference, agreed / (len(images) * len(sizes)), len(images), sizes)


def _in_batches(classify: Classifier, images: Float32Images, size: int) -> Probabilities:
    return np.concatenate([classify(images[start : start + size]) for start in range(0, len(images), size)])
