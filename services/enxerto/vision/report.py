"""A run's report: one HTML file that needs nothing else, and the plots as PNGs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from enxerto.vision.metrics import ClassificationMetrics

_INK: Final = "#1f2933"
_FAINT: Final = "#9aa5b1"
_GREEN: Final = "#2f855a"
_RED: Final = "#c53030"
_BLUE: Final = "#2b6cb0"
_AMBER: Final = "#c05621"
_DPI: Final = 130
_MAX_NAMED_CLASSES: Final = 40
_GRID_COLUMNS: Final = 6


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """One epoch on the curves.

    Attributes:
        phase: its name; phases follow one another on the axis.
        train_loss: nats.
        val_loss: nats.
        val_accuracy: in [0, 1].
        learning_rate: of the head.
    """

    phase: str
    train_loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """One held-out picture and its answer.

    Attributes:
        image: (H, W, 3), uint8, RGB.
        true_label: index.
        predicted_label: index.
        probability: of the predicted class, in [0, 1].
    """

    image: npt.NDArray[np.uint8]
    true_label: int
    predicted_label: int
    probability: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown.

    Attributes:
        title: of the page.
        class_names: in label order.
        history: in order.
        best: index into `history` of the epoch that was kept; -1 when it is not on the curves.
        metrics: of the held-out split.
        split: name of that split.
        pictures: as `choose_pictures` picks them.
        provenance: names and values, shown as they are.
    """

    title: str
    class_names: tuple[str, ...]
    history: tuple[EpochPoint, ...]
    best: int
    metrics: ClassificationMetrics
    split: str
    pictures: tuple[PredictedImage, ...]
    provenance: Mapping[str, str]


def choose_pictures(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], count: int = 18
) -> tuple[int, ...]:
    """Rows worth showing: the most confident mistakes, at most half, then right answers, one class after another.

    Args:
        probabilities: (N, classes).
        labels: (N,), the truth.
        count: how many rows at most.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = [int(row) for row in np.flatnonzero(predicted != labels)]
    wrong.sort(key=lambda row: (-confidence[row], row))
    wrong = wrong[: count // 2]
    by_class = [[int(row) for row in np.flatnonzero((predicted == labels) & (labels == one))] for one in set(labels)]
    right: list[int] = []
    for turn in range(max((len(rows) for rows in by_class), default=0)):
        right.extend(rows[turn] for rows in by_class if turn < len(rows))
    return (*wrong, *right[: count - len(wrong)])


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html` and its PNGs into a folder, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "curves": (_curves(report), "Loss, accuracy and learning rate of every epoch"),
        "confusion": (_confusion(report), "Confusion matrix: rows are the truth, columns the answers"),
        "predictions": (_predictions(report), "Held-out pictures: the most confident mistakes first"),
    }
    images: list[str] = []
    for name, (figure, caption) in figures.items():
        png = _png(figure)
        (folder / f"{name}.png").write_bytes(png)
        data = base64.b64encode(png).decode()
        images.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    page = folder / "report.html"
    page.write_text(_page(report, images), encoding="utf-8")
    return page


def _figure(width: float, height: float) -> Figure:
    # The object interface: pyplot keeps global state and is not safe in threads.
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _curves(report: Report) -> Figure:
    figure = _figure(12, 3.6)
    epochs = np.arange(1, len(report.history) + 1)
    panels = figure.subplots(1, 3)
    loss, accuracy, rate = panels
    few = "o" if len(epochs) <= 15 else ""
    loss.plot(epochs, [one.train_loss for one in report.history], color=_BLUE, marker=few, ms=4, label="training")
    loss.plot(epochs, [one.val_loss for one in report.history], color=_AMBER, marker=few, ms=4, label="validation")
    loss.set_ylim(bottom=0)
    loss.set_title("Loss (nats)")
    accuracies = [100 * one.val_accuracy for one in report.history]
    accuracy.plot(epochs, accuracies, color=_AMBER, marker=few, ms=4, label="validation")
    accuracy.set_title("Accuracy (%)")
    rate.plot(epochs, [one.learning_rate for one in report.history], color=_INK, marker=few, ms=4)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    rate.set_title("Learning rate of the head")
    if 0 <= report.best < len(accuracies):
        kept = accuracies[report.best]
        accuracy.plot(report.best + 1, kept, "o", color=_GREEN, ms=9, label=f"kept: {kept:.1f} %", zorder=3)
    phases = [one.phase for one in report.history]
    starts = [i for i in range(1, len(phases)) if phases[i] != phases[i - 1]]
    for panel in panels:
        for start in starts:
            panel.axvline(start + 0.5, color=_FAINT, linestyle=":", linewidth=1)
        panel.set_xlabel("epoch", color=_INK)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for start in starts:
        loss.annotate(
            phases[start].replace("_", " ").lower() + " →",
            (start + 0.5, 0.98), xycoords=("data", "axes fraction"), va="top", fontsize=8, color=_FAINT,
        )  # fmt: skip
    loss.legend(frameon=False)
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def _confusion(report: Report) -> Figure:
    counts = np.asarray(report.metrics.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = float(np.clip(2.2 + 0.46 * classes, 4.5, 13))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the class")
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    if classes <= _MAX_NAMED_CLASSES:
        names = [_short(name) for name in report.class_names]
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(classes), names, fontsize=8)
    if classes <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else _INK
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return figure


def _predictions(report: Report) -> Figure:
    rows = max(1, -(-len(report.pictures) // _GRID_COLUMNS))
    figure = _figure(12, 2.45 * rows)
    panels = np.atleast_1d(figure.subplots(rows, _GRID_COLUMNS)).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, picture in zip(panels, report.pictures, strict=False):
        right = picture.true_label == picture.predicted_label
        color = _GREEN if right else _RED
        panel.set_axis_on()
        panel.imshow(picture.image)
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set(color=color, linewidth=3)
        answer = f"{_short(report.class_names[picture.predicted_label])}  {100 * picture.probability:.0f} %"
        truth = "" if right else f"truth: {_short(report.class_names[picture.true_label])}"
        panel.set_title(answer, color=color, fontsize=10)
        panel.set_xlabel(truth, color=_INK, fontsize=9)
    return figure


def _short(name: str, limit: int = 18) -> str:
    # A dollar sign would start mathematical text.
    name = name if len(name) <= limit else name[: limit - 1] + "…"
    return name.replace("$", r"\$")


def _page(report: Report, figures: Sequence[str]) -> str:
    metrics = report.metrics
    headline = {
        "accuracy": f"{100 * metrics.accuracy:.1f} %",
        "precision": f"{100 * metrics.precision:.1f} %",
        "recall": f"{100 * metrics.recall:.1f} %",
        "F1": f"{100 * metrics.f1:.1f} %",
        f"{report.split.lower()} images": str(metrics.samples),
    }
    tiles = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>" for k, v in headline.items())
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{100 * one.precision:.1f}</td><td>{100 * one.recall:.1f}</td>"
        f"<td>{100 * one.f1:.1f}</td><td>{one.support}</td></tr>"
        for name, one in zip(report.class_names, metrics.per_class, strict=True)
    )
    lineage = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in report.provenance.items()
    )
    title = html.escape(report.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><div class=tiles>{tiles}</div>{''.join(figures)}"
        f"<h2>By class</h2><table class=numbers><thead><tr><th>class</th><th>precision %</th><th>recall %</th>"
        f"<th>F1 %</th><th>images</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<h2>Where it comes from</h2><table class=lineage>{lineage}</table></body></html>\n"
    )


_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1080px;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.7rem}h2{margin-top:2.2rem;font-size:1.2rem}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.8rem}"
    ".tiles div{background:#f0f4f8;border-radius:.6rem;padding:.7rem 1.3rem;display:flex;flex-direction:column}"
    ".tiles b{font-size:1.5rem}.tiles span{color:#52606d}"
    "figure{margin:2rem 0}img{max-width:100%}figcaption{color:#52606d;font-size:.9rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .9rem;border-bottom:1px solid #e4e7eb;text-align:left}"
    ".numbers td+td,.numbers th+th{text-align:right;font-variant-numeric:tabular-nums}"
    ".lineage td{overflow-wrap:anywhere;font-family:ui-monospace,monospace;font-size:.85rem}"
)
