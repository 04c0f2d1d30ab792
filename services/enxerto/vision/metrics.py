"""Classification metrics from labels and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# scikit-learn computes the same (a test holds this) but would bring SciPy into every worker for a dozen lines.


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Of one class; a ratio without any case is 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationMetrics:
    """Of one split.

    Attributes:
        samples: number of images.
        accuracy: part of them classified right, in [0, 1].
        precision: mean over the classes that occur as label or prediction, in [0, 1].
        recall: likewise.
        f1: likewise.
        per_class: in label order.
        confusion: rows are true labels, columns predictions; counts.
    """

    samples: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> Mapping[str, Any]:
        """The metrics as plain JSON values."""
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "per_class": [
                {"precision": one.precision, "recall": one.recall, "f1": one.f1, "support": one.support}
                for one in self.per_class
            ],
            "confusion": [list(row) for row in self.confusion],
        }


def classification_metrics(
    labels: npt.NDArray[np.integer[Any]], predictions: npt.NDArray[np.integer[Any]], classes: int
) -> ClassificationMetrics:
    """Metrics of (N,) predicted against (N,) true class indices in 0..classes-1.

    Raises:
        ValueError: the lengths differ, there is no sample, or an index is out of range.
    """
    if labels.shape != predictions.shape or labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"need as many labels as predictions, and some: {labels.shape}, {predictions.shape}")
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise ValueError(f"class indices must be in 0..{classes - 1}")
    flat = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    confusion = np.bincount(flat, minlength=classes * classes).reshape(classes, classes)
    right = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(actual, 1)
    f1 = 2 * right / np.maximum(predicted + actual, 1)
    present = (predicted + actual) > 0
    return ClassificationMetrics(
        samples=len(labels),
        accuracy=float(right.sum() / len(labels)),
        precision=float(precision[present].mean()),
        recall=float(recall[present].mean()),
        f1=float(f1[present].mean()),
        per_class=tuple(
            ClassMetrics(float(p), float(r), float(f), int(n))
            for p, r, f, n in zip(precision, recall, f1, actual, strict=True)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence and truth are apart.

    Attributes:
        error: expected calibration error, in [0, 1] (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599, eq. 3).
        log_loss: mean negative logarithm of the true class's probability, nats.
    """

    error: float
    log_loss: float


def calibration(
    labels: npt.NDArray[np.integer[Any]], probabilities: npt.NDArray[np.floating[Any]], *, bins: int = 15
) -> Calibration:
    """Of (N, classes) probabilities against (N,) true class indices; confidence falls into bins of equal width."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.bincount(place, weights=right, minlength=bins) - np.bincount(place, weights=confidence, minlength=bins)
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    # What rounded to nothing is as unlikely as float32 can tell.
    log_loss = -np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()
    return Calibration(float(np.abs(gaps).sum() / max(1, counts.sum())), float(log_loss))


def top_k_accuracy(labels: npt.NDArray[np.integer[Any]], probabilities: npt.NDArray[np.floating[Any]], k: int) -> float:
    """Part of the (N,) labels that are among the k most probable of (N, classes); equal ones count as beaten."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities >= true[:, None]).sum(axis=1) <= k).mean())
