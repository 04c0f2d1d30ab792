"""Drawings of pictures with what was answered and what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from enxerto.vision.contracts import IGNORED
from enxerto.vision.report.canvas import GREEN, INK, RED, class_color, grid, new_canvas, short, to_png
from enxerto.vision.report.content import Figure

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), uint8, RGB."""

_COLUMNS: Final = 6
_BOX_COLUMNS: Final = 3
_MAX_LEGEND: Final = 24
_OPACITY: Final = 0.55


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture and its class.

    Attributes:
        image: (H, W, 3), uint8, RGB.
        true_label: index.
        predicted_label: index.
        probability: of the predicted class, in [0, 1].
    """

    image: Picture
    true_label: int
    predicted_label: int
    probability: float


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """A picture and its objects, in the picture's pixels.

    Attributes:
        image: (H, W, 3), uint8, RGB.
        true_boxes: (n, 4): x_min, y_min, x_max, y_max.
        true_labels: (n,).
        boxes: (m, 4), the answers.
        labels: (m,).
        scores: (m,), in [0, 1].
    """

    image: Picture
    true_boxes: npt.NDArray[Any]
    true_labels: npt.NDArray[Any]
    boxes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MaskedPicture:
    """A picture and the class of each pixel.

    Attributes:
        image: (H, W, 3), uint8, RGB.
        true_mask: (H, W), class indices; 255 is ignored.
        mask: (H, W), the answer.
        score: shown above the answer, such as its mIoU.
    """

    image: Picture
    true_mask: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    score: float


@dataclass(frozen=True, slots=True)
class Triptych:
    """A picture, a style, and the picture in that style: (H, W, 3), uint8, RGB each, of any size."""

    content: Picture
    style: Picture
    result: Picture


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


def labels_figure(pictures: Sequence[LabelledPicture], class_names: Sequence[str]) -> Figure:
    """Pictures with their answers; those that are wrong have a red border and the truth below."""
    canvas = new_canvas(12, 2.45 * max(1, -(-len(pictures) // _COLUMNS)))
    for panel, picture in zip(grid(canvas, len(pictures), _COLUMNS), pictures, strict=True):
        right = picture.true_label == picture.predicted_label
        color = GREEN if right else RED
        _show(panel, picture.image)
        panel.set_axis_on()
        for spine in panel.spines.values():
            spine.set(color=color, linewidth=3)
        answer = f"{short(class_names[picture.predicted_label])}  {100 * picture.probability:.0f} %"
        truth = "" if right else f"truth: {short(class_names[picture.true_label])}"
        panel.set_title(answer, color=color, fontsize=10)
        panel.set_xlabel(truth, color=INK, fontsize=9)
    return Figure("predictions", "Held-out pictures: the most confident mistakes first", to_png(canvas))


def boxes_figure(pictures: Sequence[BoxedPicture], class_names: Sequence[str]) -> Figure:
    """Pictures with what is there (dashed, white on black) and what was found (a colour for each class)."""
    canvas = new_canvas(12, 4.2 * max(1, -(-len(pictures) // _BOX_COLUMNS)))
    for panel, picture in zip(grid(canvas, len(pictures), _BOX_COLUMNS), pictures, strict=True):
        _show(panel, picture.image)
        for box, label in zip(picture.true_boxes, picture.true_labels, strict=True):
            _box(panel, box, "black", width=2.6)
            _box(panel, box, "white", width=1.3, style="--")
            panel.text(
                box[2], box[3], short(class_names[int(label)]), color="white", fontsize=7, ha="right", va="bottom",
                bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "lw": 0},
            )  # fmt: skip
        for box, label, score in zip(picture.boxes, picture.labels, picture.scores, strict=True):
            color = class_color(int(label))
            _box(panel, box, color, width=2)
            panel.text(
                box[0], box[1], f"{short(class_names[int(label)])} {100 * score:.0f} %", color="white", fontsize=7,
                va="bottom", bbox={"facecolor": color, "pad": 1, "lw": 0},
            )  # fmt: skip
    return Figure("detections", "Held-out pictures, worst first: dashed boxes are the truth", to_png(canvas))


def masks_figure(pictures: Sequence[MaskedPicture], class_names: Sequence[str]) -> Figure:
    """A row for each picture: the picture, the truth over it, the answer over it."""
    rows = max(1, len(pictures))
    canvas = new_canvas(11, 3.3 * rows + 0.6)
    panels = np.asarray(grid(canvas, 3 * rows, 3), dtype=object).reshape(rows, 3)
    # What is not an object stays as it is, so that the objects stand out.
    bare = {label for label, name in enumerate(class_names) if name.lower() == "background"}
    shown: set[int] = set()
    for (left, middle, right), picture in zip(panels, pictures, strict=False):
        _show(left, picture.image)
        _show(middle, _overlay(picture.image, picture.true_mask, bare))
        _show(right, _overlay(picture.image, picture.mask, bare))
        left.set_title("picture", fontsize=9)
        middle.set_title("truth", fontsize=9)
        right.set_title(f"answer  {picture.score:.3f}", fontsize=9)
        shown |= {int(one) for one in np.union1d(picture.true_mask, picture.mask)} - bare - {IGNORED}
    patches = [
        Patch(color=class_color(label), label=short(class_names[label])) for label in sorted(shown)[:_MAX_LEGEND]
    ]
    if patches:
        canvas.legend(handles=patches, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return Figure("masks", "Held-out pictures, worst first; white is ignored", to_png(canvas))


def styles_figure(triptychs: Sequence[Triptych]) -> Figure:
    """A row for each: content, style, result."""
    rows = max(1, len(triptychs))
    canvas = new_canvas(11, 3.6 * rows)
    panels = np.asarray(grid(canvas, 3 * rows, 3), dtype=object).reshape(rows, 3)
    for row, triptych in zip(panels, triptychs, strict=False):
        images = (triptych.content, triptych.style, triptych.result)
        for panel, image, title in zip(row, images, ("content", "style", "result"), strict=True):
            _show(panel, image)
            panel.set_title(title, fontsize=9)
    return Figure("styles", "Pictures in the style", to_png(canvas))


def _show(panel: Axes, image: Picture) -> None:
    panel.imshow(image)
    panel.set_xticks([])
    panel.set_yticks([])
    # Labels at the edge must not stretch the view.
    panel.set_xlim(-0.5, image.shape[1] - 0.5)
    panel.set_ylim(image.shape[0] - 0.5, -0.5)


def _box(panel: Axes, box: npt.NDArray[Any], color: Any, *, width: float, style: str = "-") -> None:
    left, top, right, bottom = (float(value) for value in box)
    panel.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=width, linestyle=style
        )
    )


def _overlay(image: Picture, mask: npt.NDArray[Any], bare: set[int]) -> Picture:
    palette, opacity = np.zeros((256, 3)), np.zeros((256, 1))
    for label in {int(one) for one in np.unique(mask)} - bare:
        palette[label] = (1, 1, 1) if label == IGNORED else class_color(label)
        opacity[label] = _OPACITY
    rows = mask.astype(np.uint8)
    mixed = (1 - opacity[rows]) * image + opacity[rows] * 255 * palette[rows]
    return mixed.astype(np.uint8)
