"""Drawings of numbers: curves, confusion, calibration, precision and recall, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from enxerto.vision.report.canvas import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    INK,
    class_color,
    new_canvas,
    plain,
    short,
    to_png,
)
from enxerto.vision.report.content import Figure

_MAX_NAMED_CLASSES: Final = 40
_MAX_COUNTED_CLASSES: Final = 20
_MAX_PR_CURVES: Final = 12
_FEW_EPOCHS: Final = 15
_MOST_BINS: Final = 14


class Bin(Protocol):
    """How many have a side of at most so many pixels, and more than the bin before; a `SizeBin` is one."""

    @property
    def max_side(self) -> int:
        """A power of two, pixels."""
        ...

    @property
    def count(self) -> int:
        """Of pictures or boxes."""
        ...


class Epoch(Protocol):
    """One epoch on the curves; an `EpochReport` is one."""

    @property
    def phase(self) -> str:
        """Its name; phases follow one another on the axis."""
        ...

    @property
    def train_loss(self) -> float:
        """Mean of the epoch's batches."""
        ...

    @property
    def val_loss(self) -> float:
        """Of the validation split."""
        ...

    @property
    def score(self) -> float:
        """The task's own metric on the validation split."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of the head."""
        ...


@dataclass(frozen=True, slots=True)
class PrCurve:
    """Precision against recall.

    Attributes:
        label: class name, or what it is the mean of.
        recall: (n,), growing, in [0, 1].
        precision: (n,), in [0, 1].
        average_precision: in [0, 1]; NaN when the class has no objects.
    """

    label: str
    recall: npt.NDArray[Any]
    precision: npt.NDArray[Any]
    average_precision: float


def curves_figure(history: Sequence[Epoch], *, best: int = -1, score_title: str = "Score") -> Figure:
    """Loss, the task's score and the learning rate of every epoch.

    Args:
        history: in order.
        best: index of the epoch that was kept; -1 when it is not on the curves.
        score_title: name of the score, with its unit.
    """
    canvas = new_canvas(12, 3.6)
    epochs = np.arange(1, len(history) + 1)
    panels = [plain(panel) for panel in canvas.subplots(1, 3)]
    loss, score, rate = panels
    few = "o" if len(epochs) <= _FEW_EPOCHS else ""
    loss.plot(epochs, [one.train_loss for one in history], color=BLUE, marker=few, ms=4, label="training")
    loss.plot(epochs, [one.val_loss for one in history], color=AMBER, marker=few, ms=4, label="validation")
    loss.set_title("Loss")
    if all(one.val_loss >= 0 and one.train_loss >= 0 for one in history):
        loss.set_ylim(bottom=0)
    scores = [one.score for one in history]
    score.plot(epochs, scores, color=AMBER, marker=few, ms=4, label="validation")
    score.set_title(short(score_title, 40))
    rate.plot(epochs, [one.learning_rate for one in history], color=INK, marker=few, ms=4)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    rate.set_title("Learning rate of the head")
    if 0 <= best < len(scores):
        score.plot(best + 1, scores[best], "o", color=GREEN, ms=9, label=f"kept: {scores[best]:.4g}", zorder=3)
    starts = [i for i in range(1, len(history)) if history[i].phase != history[i - 1].phase]
    for panel in panels:
        for start in starts:
            panel.axvline(start + 0.5, color=FAINT, linestyle=":", linewidth=1)
        panel.set_xlabel("epoch", color=INK)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for start in starts:
        loss.annotate(
            history[start].phase.replace("_", " ").lower() + " →",
            (start + 0.5, 0.98), xycoords=("data", "axes fraction"), va="top", fontsize=8, color=FAINT,
        )  # fmt: skip
    loss.legend(frameon=False)
    score.legend(frameon=False, loc="lower right")
    return Figure("curves", "Loss, score and learning rate of every epoch", to_png(canvas))


def confusion_figure(confusion: npt.ArrayLike, class_names: Sequence[str], *, unit: str = "images") -> Figure:
    """The confusion matrix as shares of each class.

    Args:
        confusion: (classes, classes) counts: rows are the truth, columns the answers.
        class_names: in label order.
        unit: what is counted.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.46 * len(counts), 4.5, 13))
    canvas = new_canvas(side + 0.8, side)
    axes = canvas.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    canvas.colorbar(image, ax=axes, fraction=0.046, pad=0.03).set_label("share of the class")
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    if len(counts) <= _MAX_NAMED_CLASSES:
        names = [short(name) for name in class_names]
        axes.set_xticks(range(len(counts)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(counts)), names, fontsize=8)
    if len(counts) <= _MAX_COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else INK
            text = f"{counts[row, column]:.0f}" if counts[row, column] < 1e5 else f"{shares[row, column]:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return Figure("confusion", f"Confusion matrix of {unit}: rows are the truth, columns the answers", to_png(canvas))


def calibration_figure(
    confidence: npt.NDArray[Any], correct: npt.NDArray[np.bool_], *, bins: int = 15, unit: str = "answers"
) -> Figure:
    """Reliability diagram (Guo et al. 2017, arXiv:1706.04599, section 2): how often answers of a confidence are right.

    Args:
        confidence: (N,), in [0, 1].
        correct: (N,), whether each answer is right.
        bins: of equal width.
        unit: what N counts.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    right = np.bincount(place, weights=correct.astype(np.float64), minlength=bins)[filled] / counts[filled]
    sure = np.bincount(place, weights=confidence.astype(np.float64), minlength=bins)[filled] / counts[filled]
    error = float(np.abs(right - sure) @ counts[filled]) / max(1, len(confidence))
    canvas = new_canvas(5.2, 5.6)
    upper, lower = canvas.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    plain(upper).plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfect")
    upper.bar(edges[:-1][filled], right, width=1 / bins, align="edge", color=BLUE, alpha=0.35, edgecolor="white")
    upper.plot(sure, right, "o-", color=BLUE, ms=5, label=f"measured, error {error:.3f}")
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1.02)
    upper.legend(frameon=False, loc="upper left")
    plain(lower).bar(edges[:-1], counts, width=1 / bins, align="edge", color=INK, alpha=0.6, edgecolor="white")
    lower.set_ylabel(unit)
    lower.set_xlabel("confidence")
    lower.set_xlim(0, 1)
    return Figure("calibration", f"Calibration: how often {unit} of a confidence are right", to_png(canvas))


def pr_curves_figure(curves: Sequence[PrCurve], *, at: str = "IoU 0.5") -> Figure:
    """Precision against recall; of many classes, those with the lowest average precision.

    Args:
        curves: any number; the first is drawn bold when there are several.
        at: what counts as found.
    """
    canvas = new_canvas(7.5, 5)
    axes = plain(canvas.subplots())
    first, rest = list(curves[:1]), [one for one in curves[1:] if np.isfinite(one.average_precision)]
    rest.sort(key=lambda one: one.average_precision)
    for index, curve in enumerate([*first, *rest[: _MAX_PR_CURVES - 1]]):
        bold = index == 0
        axes.plot(
            curve.recall, curve.precision, color=INK if bold else class_color(index - 1), lw=2.4 if bold else 1.3,
            label=f"{short(curve.label, 24)}  {curve.average_precision:.3f}",
        )  # fmt: skip
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    if curves:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="average precision")
    return Figure("precision_recall", f"Precision against recall at {at}", to_png(canvas))


def class_histogram_figure(
    counts: Mapping[str, Sequence[int]], class_names: Sequence[str], *, unit: str = "images"
) -> Figure:
    """How much of every class each split holds.

    Args:
        counts: for each split, one number a class.
        class_names: in label order.
        unit: what is counted: images, objects, pixels.
    """
    classes = len(class_names)
    canvas = new_canvas(9, float(np.clip(1.4 + 0.26 * classes, 2.6, 14)))
    axes = plain(canvas.subplots())
    colors = (BLUE, AMBER, GREEN, INK)
    left = np.zeros(classes)
    for (split, values), color in zip(counts.items(), colors, strict=False):
        row = np.asarray(values, np.float64)
        axes.barh(np.arange(classes), row, left=left, color=color, label=f"{split.lower()}: {row.sum():,.0f}")
        left += row
    axes.invert_yaxis()
    if classes <= _MAX_NAMED_CLASSES:
        axes.set_yticks(range(classes), [short(name, 28) for name in class_names], fontsize=8)
    else:
        axes.set_ylabel("class")
    axes.set_xlabel(unit)
    axes.legend(frameon=False, loc="best")
    return Figure("classes", f"What the data set holds: {unit} of every class", to_png(canvas))


def sizes_figure(pictures: Sequence[Bin], boxes: Sequence[Bin] = ()) -> Figure:
    """How large the pictures are, and the boxes when there are any.

    Args:
        pictures: by their longer side, in order.
        boxes: by the side of the square with their area, in order.
    """
    shown = [(pictures, "pictures", "longer side, pixels", BLUE, 64)]
    if boxes:
        shown.append((boxes, "boxes", "side of the square with the box's area, pixels", AMBER, 8))
    canvas = new_canvas(12 if boxes else 7, 3.2)
    panels = np.atleast_1d(canvas.subplots(1, len(shown)))
    for panel, (bins, unit, title, color, smallest) in zip(panels, shown, strict=True):
        counts = {one.max_side: one.count for one in bins}
        # The empty bins between the others too, so that the axis is even.
        sides, last = [min(counts, default=64)], max(counts, default=64)
        while sides[-1] < last and len(sides) < _MOST_BINS:
            sides.append(sides[-1] * 2)
        heights = [counts.get(side, 0) for side in sides]
        plain(panel).bar(range(len(sides)), heights, width=0.9, color=color, alpha=0.8)
        for place, height in enumerate(heights):
            panel.text(place, height, f"{height:,}", ha="center", va="bottom", fontsize=8, color=INK)
        names = [f"{side // 2 + 1}-{side}" if side > smallest else f"≤ {side}" for side in sides]
        panel.set_xticks(range(len(sides)), names, fontsize=8, rotation=30 if len(sides) > 6 else 0)
        room = max(0.6, 2 - len(sides) / 2)
        panel.set_xlim(-room, len(sides) - 1 + room)
        panel.set_ylim(0, max(1, *heights) * 1.12)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        panel.grid(axis="x", visible=False)
        panel.set_xlabel(title)
        panel.set_ylabel(unit)
    return Figure("sizes", "How large the pictures are" + (" and the boxes in them" if boxes else ""), to_png(canvas))
