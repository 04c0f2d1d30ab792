"""What a format says of the pictures, before anyone has looked at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enxerto.vision.datasets.findings import Finding
from enxerto.vision.datasets.scans import MaskSource
from enxerto.vision.datasets.tree import Tree
from enxerto.vision.specs import Split, Task


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box as someone drew it; nothing of it is checked.

    Attributes:
        label: index into the class names.
        x_min: left edge, in pixels, or a part of the width.
        y_min: upper edge, likewise.
        x_max: right edge.
        y_max: lower edge.
        crowd: as `Box.crowd`.
        relative: whether the edges are parts of the picture's size.
        line: of the annotation file, from 1; 0 when it has none.
        origin: the annotation file, when it is another than the picture's.
    """

    label: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    crowd: bool = False
    relative: bool = False
    line: int = 0
    origin: str = ""


@dataclass(slots=True)
class Picture:
    """One picture and what a format says of it.

    Attributes:
        path: relative to the root.
        split: that the format gives, or None.
        label: index into the class names, or None.
        boxes: as drawn.
        mask: where its mask is drawn from.
        origin: the file that the annotations are in; the picture's own path when empty.
        line: where in that file, from 1; 0 when it has no lines.
        size: width and height that the format declares, or None.
        annotated: False when nothing was said of it, so that it counts as background.
    """

    path: str
    split: Split | None = None
    label: int | None = None
    boxes: list[DrawnBox] = field(default_factory=list)
    mask: MaskSource | None = None
    origin: str = ""
    line: int = 0
    size: tuple[int, int] | None = None
    annotated: bool = True


@dataclass(slots=True)
class Reading:
    """All that a format says.

    Attributes:
        class_names: in label order; empty when only the masks' values tell how many classes there are.
        pictures: in any order, none twice.
        findings: about the annotations.
        class_paths: file or folder to name in findings about a class.
        optional_files: whether files that turn out not to be pictures are only skipped.
    """

    class_names: tuple[str, ...]
    pictures: list[Picture] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    class_paths: Mapping[str, str] = field(default_factory=dict)
    optional_files: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One way to lay out a data set.

    Attributes:
        kind: its name in `DatasetStatistics.format`.
        tasks: what it can be read for.
        sought: what makes it out, for people.
        recognise: what was found of it, for people, or None; cheap.
        read: everything that it says.
    """

    kind: str
    tasks: frozenset[Task]
    sought: str
    recognise: Callable[[Tree, Task], str | None]
    read: Callable[[Tree, Task], Reading]
