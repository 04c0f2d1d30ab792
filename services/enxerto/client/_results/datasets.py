"""Datasets and snapshots."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from enxerto.client._results.shared import Failure, Task


class SnapshotState(StrEnum):
    """Where an import is."""

    UNSPECIFIED = "UNSPECIFIED"
    IMPORTING = "IMPORTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named line of snapshots."""

    name: str
    display_name: str
    task: Task
    latest_snapshot: str
    """Newest READY snapshot; empty when there is none."""
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that looking at a data set has found."""

    severity: str
    """ERROR or WARNING."""
    path: str
    """Relative to the root of the source."""
    code: str
    message: str
    line: int = 0
    """Of the file, from 1; 0 when it has none."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often a class occurs."""

    class_name: str
    split_counts: Mapping[str, int]
    """Annotations in `train`, `val` and `test`."""

    @property
    def total(self) -> int:
        """Over all splits."""
        return sum(self.split_counts.values())


@dataclass(frozen=True, slots=True)
class Statistics:
    """What images and annotations look like."""

    format: str
    """As found: IMAGE_FOLDER, CSV, COCO, YOLO, VOC, MASKS or IMAGES."""
    image_count: int
    annotation_count: int
    classes: tuple[ClassCount, ...]
    sizes: Mapping[int, int]
    """Pictures by the most pixels of their longer side."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable copy of labelled images."""

    name: str
    state: SnapshotState
    digest: str
    """sha256 of the content."""
    class_names: tuple[str, ...]
    split_counts: Mapping[str, int]
    """Images in `train`, `val` and `test`."""
    size_bytes: int
    findings: tuple[Finding, ...]
    """Errors first; at most 1,000."""
    finding_count: int
    error: Failure | None
    create_time: datetime | None
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What looking at a data set has found; nothing was stored."""

    importable: bool
    """Whether an import would succeed."""
    findings: tuple[Finding, ...]
    """Errors first; at most 1,000."""
    finding_count: int
    split_counts: Mapping[str, int]
    statistics: Statistics | None
