"""What looking at a data set gives: its pictures, what is known of them, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from enxerto.vision.datasets.findings import Finding, Severity
from enxerto.vision.datasets.samples import Box
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Split, Task

Mask = npt.NDArray[np.uint8]
"""(H, W) class indices of the upright picture's pixels; 255 is ignored."""


class MaskError(ValueError):
    """A mask that cannot be used; `code` is stable, the message is for people.

    `line` is of the file that says it, from 1; 0 when the whole of it is meant.
    """

    def __init__(self, code: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.line = line


class MaskSource(Protocol):
    """Where a mask is drawn from, each time that it is needed: masks of a data set do not fit in memory."""

    @property
    def path(self) -> str:
        """File that says it, relative to the root, for findings."""
        ...

    def render(self, width: int, height: int) -> Mask:
        """The mask of a picture of this size; raises MaskError."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of a data set.

    Attributes:
        path: relative to the root, POSIX.
        split: what it is used for.
        sha256: of the encoded bytes, hexadecimal.
        width: upright, pixels.
        height: upright, pixels.
        size_bytes: of the encoded image.
        label: index into the class names, or None.
        boxes: within the picture.
        mask: where its mask is drawn from.
        mask_labels: classes in the mask.
    """

    path: str
    split: Split
    sha256: str
    width: int
    height: int
    size_bytes: int
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    mask: MaskSource | None = None
    mask_labels: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """Every class that occurs in it, with repetition of boxes."""
        if self.label is not None:
            return (self.label,)
        return self.mask_labels if self.mask else tuple(box.label for box in self.boxes)


@dataclass(frozen=True, slots=True)
class Scan:
    """What a folder holds.

    Attributes:
        root: folder that the samples' paths are relative to.
        task: what it was looked at for.
        class_names: a label is an index into them.
        samples: sorted by path; only readable pictures.
        findings: sorted by path and line; with an ERROR the scan must not become a snapshot.
        statistics: of the samples.
    """

    root: Path
    task: Task
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    findings: tuple[Finding, ...]
    statistics: DatasetStatistics

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop an import."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)
