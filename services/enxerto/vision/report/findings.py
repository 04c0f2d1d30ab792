"""What the import of the data found: a table, and the pictures that it is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from enxerto.vision.datasets.findings import Edges, Finding
from enxerto.vision.report.canvas import FAINT, INK, RED, grid, new_canvas, short, to_png
from enxerto.vision.report.content import Figure, Table

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), uint8, RGB."""

_COLUMNS: Final = 4
_GAP: Final = 0.04
# How far beyond the picture a box is followed, as a part of the picture.
_BEYOND: Final = 0.3
_MOST_TOLD: Final = 100
_NAME: Final = 34


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """One finding and what it looks like.

    Attributes:
        number: of the finding in the table.
        code: of the finding.
        names: of the pictures.
        images: one, or two that are compared: (H, W, 3), uint8, RGB, of any size.
        box: in pixels of the first picture as it is here, also beyond it.
    """

    number: int
    code: str
    names: tuple[str, ...]
    images: tuple[Picture, ...]
    box: Edges | None = None


def choose_findings(findings: Sequence[Finding], most: int = _MOST_TOLD) -> tuple[Finding, ...]:
    """At most so many in their order, errors first; of every code some, however many there are of another."""
    by_code: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for place, one in enumerate(findings):
        by_code[one.severity != "ERROR", one.code].append(place)
    groups = [by_code[key] for key in sorted(by_code)]
    turns = max(map(len, groups), default=0)
    fair = [(group[turn], number) for turn in range(turns) for number, group in enumerate(groups) if turn < len(group)]
    return tuple(findings[place] for place, number in sorted(fair[:most], key=lambda one: (one[1], one[0])))


def findings_table(findings: Sequence[Finding], total: int) -> Table:
    """Number, severity, file and line, message and code of each.

    Args:
        findings: what is told, in order.
        total: how many there were.
    """
    title = (
        f"{len(findings)} of {total:,} findings of the import" if total > len(findings) else "Findings of the import"
    )
    rows = tuple(
        (
            str(number),
            one.severity.value.lower(),
            f"{one.path}:{one.line}" if one.line else one.path,
            one.message,
            one.code,
        )
        for number, one in enumerate(findings, start=1)
    )
    return Table(title, ("#", "severity", "file", "finding", "code"), rows)


def findings_figure(pictures: Sequence[FoundPicture]) -> Figure:
    """A panel for each finding, with its number in the table; boxes as they were drawn, pairs side by side."""
    # Pairs are half as high as single pictures of the same width.
    row = 3.3 if any(len(one.images) == 1 for one in pictures) else 2.2
    canvas = new_canvas(12, row * max(1, -(-len(pictures) // _COLUMNS)))
    for panel, picture in zip(grid(canvas, len(pictures), _COLUMNS), pictures, strict=True):
        left = 0.0
        # All pictures of a panel are as high as the first.
        height = picture.images[0].shape[0]
        for image in picture.images:
            width = image.shape[1] * height / image.shape[0]
            panel.imshow(image, extent=(left, left + width, height, 0))
            left += width * (1 + _GAP)
        _view(panel, left - width * _GAP, height, picture.box)
        panel.set_title(f"#{picture.number}  {picture.code.lower().replace('_', ' ')}", fontsize=9, color=INK)
        names = "\n".join(_tail(name) for name in picture.names)
        panel.text(0.5, -0.03, names, transform=panel.transAxes, ha="center", va="top", fontsize=7, color=INK)
    caption = "Some of the findings, numbered as in the table; red is the box that it is about"
    return Figure("findings", caption, to_png(canvas))


def _view(panel: Axes, width: float, height: float, box: Edges | None) -> None:
    """The whole of the pictures, and so much of a box beyond them that one sees where it goes."""
    left, top, right, bottom = 0.0, 0.0, width, float(height)
    if box is not None:
        panel.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=FAINT, linewidth=1))
        x_min, y_min, x_max, y_max = box
        # A box without width or height is still a line, or a dot.
        panel.add_patch(
            Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor=RED, linewidth=2.2)
        )
        if x_min == x_max or y_min == y_max:
            panel.plot((x_min + x_max) / 2, (y_min + y_max) / 2, "o", ms=14, mfc="none", mec=RED, mew=1.2)
        far_x, far_y = _BEYOND * width, _BEYOND * height
        left, right = min(left, max(x_min - 2, -far_x)), max(right, min(x_max + 2, width + far_x))
        top, bottom = min(top, max(y_min - 2, -far_y)), max(bottom, min(y_max + 2, height + far_y))
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
    panel.set_aspect("equal")


def _tail(name: str) -> str:
    """The end of a path tells more than its beginning."""
    return short(name if len(name) <= _NAME else f"…{name[1 - _NAME :]}", _NAME)
