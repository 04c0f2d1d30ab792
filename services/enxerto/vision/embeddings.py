"""Where a network's backbone places the images that it was trained on, and how far others lie from there. Pure.

The distance of two sets of embeddings is the Fréchet distance of the Gaussians that are fitted to them (Dowson and
Landau 1982; used on embeddings by Heusel et al. 2017, arXiv:1706.08500), here with diagonal covariances, in units of
the reference's standard deviations, and averaged over the features, so that networks of any size share one scale: 1 is
as if every feature's mean had moved by one standard deviation. Features that hardly vary among the training images
count by less, as much as they vary.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

REFERENCE_FILE: Final = "embedding_reference.json"
"""The artefact of a version that keeps its reference."""

_LEAST_SHARE: Final = 0.01

Embeddings = npt.NDArray[np.float32]
"""(N, D)."""
Moments = npt.NDArray[np.float64]
"""(D,)."""


@dataclass(frozen=True, slots=True)
class EmbeddingReference:
    """What the embeddings of training images are like.

    Attributes:
        count: images that they were taken from.
        mean: (D,) of each feature.
        variance: (D,) of each feature.
        held_out_drift: of images that were held out of training: what no drift at all looks like. A network's own
            training images lie closer together than others.
    """

    count: int
    mean: Moments
    variance: Moments
    held_out_drift: float = 0.0

    @property
    def _weights(self) -> Moments:
        """(D,) of each feature's squared differences; with them the reference's own variances sum to 1."""
        # A feature that was silent in training would make the smallest murmur infinitely far. The median, because
        # a few features vary a thousand times as much as the others.
        heard = self.variance[self.variance > 0]
        floor = _LEAST_SHARE * float(np.median(heard)) if len(heard) else 1.0
        weights: Moments = 1 / np.maximum(self.variance, floor)
        own = float(weights @ self.variance)
        return weights / (own if own > 0 else float(weights.sum()))

    def drift(self, mean: Moments, variance: Moments) -> float:
        """How far images with these moments, (D,) each, lie from the reference; see the module."""
        moved, widened = mean - self.mean, np.sqrt(variance) - np.sqrt(self.variance)
        return float(self._weights @ (moved**2 + widened**2))

    def distances(self, embeddings: Embeddings) -> Moments:
        """(N,) how many times as far from the mean as training images each lies: root mean square over the features."""
        distances: Moments = np.sqrt(((embeddings - self.mean) ** 2) @ self._weights)
        return distances

    def to_json(self) -> str:
        """As a document; six digits are more than a sample of images is worth."""
        value = {
            "count": self.count,
            "mean": [float(f"{one:.6g}") for one in self.mean],
            "variance": [float(f"{one:.6g}") for one in self.variance],
            "held_out_drift": float(f"{self.held_out_drift:.6g}"),
        }
        return json.dumps(value)

    @classmethod
    def from_json(cls, text: str | bytes) -> EmbeddingReference:
        """The reverse of `to_json`.

        Raises:
            ValueError: it is not one.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            mean, variance = (np.array(value[name], np.float64) for name in ("mean", "variance"))
            read = cls(int(value["count"]), mean, variance, float(value["held_out_drift"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not an embedding reference: {error}") from error
        same = mean.ndim == 1 and mean.shape == variance.shape and len(mean) > 0
        if not (same and np.isfinite([mean, variance]).all() and (variance >= 0).all() and read.held_out_drift >= 0):
            raise ValueError("not an embedding reference: mean and variance must be finite and of one size")
        if not math.isfinite(read.held_out_drift):
            raise ValueError("not an embedding reference: held_out_drift must be finite")
        return read


class RunningMoments:
    """Mean and variance of each feature over images that come one batch after the other.

    With a window, older images fade: each counts (1 - 1/window) times as much as the one after it, once there are more
    than the window holds.
    """

    def __init__(self, dimension: int, window: int = 0) -> None:
        self.count = 0
        self.mean: Moments = np.zeros(dimension)
        self.variance: Moments = np.zeros(dimension)
        self._window = window

    def add(self, embeddings: Embeddings) -> None:
        """Take in (N, D) rows. Weighted updates of West (1979), a batch at a time (Chan, Golub and LeVeque 1983)."""
        rows = len(embeddings)
        if not rows:
            return
        self.count += rows
        share = rows / self.count
        if self._window:
            share = max(share, 1 - (1 - 1 / self._window) ** rows)
        mean, variance = embeddings.mean(axis=0, dtype=np.float64), embeddings.var(axis=0, dtype=np.float64)
        moved = mean - self.mean
        self.variance += share * (variance - self.variance) + share * (1 - share) * moved**2
        self.mean += share * moved
