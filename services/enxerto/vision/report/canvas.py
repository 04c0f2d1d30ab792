"""The canvas that every figure is drawn on, and its colours."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

INK: Final = "#1f2933"
FAINT: Final = "#9aa5b1"
GREEN: Final = "#2f855a"
RED: Final = "#c53030"
BLUE: Final = "#2b6cb0"
AMBER: Final = "#c05621"

_DPI: Final = 130
_GOLDEN: Final = 0.61803398875

Rgb = tuple[float, float, float]


def new_canvas(width: float, height: float) -> Canvas:
    """An empty white canvas, inches."""
    # The object interface: pyplot keeps global state and is not safe in threads.
    canvas = Canvas(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(canvas)
    return canvas


def to_png(canvas: Canvas) -> bytes:
    """The canvas as an encoded picture."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def plain(panel: Axes) -> Axes:
    """A panel with a faint grid and open at the top and right."""
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    return panel


def grid(canvas: Canvas, count: int, columns: int) -> Sequence[Axes]:
    """`count` bare panels for pictures, row by row; the rest of the last row stays empty."""
    rows = max(1, -(-count // columns))
    panels: Sequence[Axes] = list(np.atleast_1d(canvas.subplots(rows, columns)).ravel())
    for panel in panels:
        panel.set_axis_off()
    return panels[:count]


def class_color(index: int) -> Rgb:
    """A colour for a class, in [0, 1]: neighbours differ much, and so does each from its next few."""
    hue = (index * _GOLDEN) % 1
    return colorsys.hsv_to_rgb(hue, 0.75, 0.9 if index % 2 else 0.7)


def short(name: str, limit: int = 18) -> str:
    """A name that fits beside a drawing."""
    # A dollar sign would start mathematical text.
    name = name if len(name) <= limit else name[: limit - 1] + "…"
    return name.replace("$", r"\$")
