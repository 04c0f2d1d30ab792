"""Datasets and their immutable snapshots."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from enxerto.kernel.names import DatasetName, SnapshotName
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Task

MAX_FINDINGS = 1000
"""Findings kept on a snapshot; the rest are counted."""
_MAX_WARNINGS = 20


class SnapshotState(enum.StrEnum):
    """IMPORTING becomes READY or FAILED; both are final."""

    IMPORTING = "IMPORTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an import found."""

    is_error: bool
    """An error fails the import; a warning does not."""
    path: str
    """Relative to the source's root."""
    code: str
    """Stable, upper snake case."""
    message: str
    """For people."""
    line: int = 0
    """Of the file, from 1; 0 when it has none."""


@dataclass(frozen=True, slots=True)
class PathSource:
    """A folder or an archive on the service's machine."""

    path: str


@dataclass(frozen=True, slots=True)
class UploadSource:
    """An archive that UploadArchive stored."""

    sha256: str


@dataclass(frozen=True, slots=True)
class UriSource:
    """A folder or an archive in an object store: `s3://…` or `gs://…`."""

    uri: str


Source = PathSource | UploadSource | UriSource


@dataclass(frozen=True, slots=True)
class DatasetValidation:
    """What looking at a source has found; nothing is stored."""

    findings: tuple[Finding, ...]
    """Everything; errors first."""
    statistics: DatasetStatistics | None
    """None when the source could not even be unpacked."""
    split_counts: Mapping[str, int]
    """Images by `train`, `val`, `test`."""

    @property
    def importable(self) -> bool:
        """Whether an import would succeed."""
        return not any(finding.is_error for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named line of snapshots."""

    name: DatasetName
    task: Task
    create_time: datetime
    update_time: datetime
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    latest_ready: int | None = None
    """Number of the newest READY snapshot."""
    revision: int = 1
    """Grows with every change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotContent:
    """What a successful import stored."""

    digest: str
    """Hexadecimal sha256 of the content."""
    manifest_sha256: str
    """Of the blob that lists the shards."""
    class_names: tuple[str, ...]
    split_counts: Mapping[str, int]
    """Images by `train`, `val`, `test`."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An immutable, content-addressed copy of labelled images."""

    name: SnapshotName
    source: Source
    split_seed: int
    create_time: datetime
    update_time: datetime
    state: SnapshotState = SnapshotState.IMPORTING
    error: bytes | None = None
    """A serialised google.rpc.Status, for FAILED."""
    findings: tuple[Finding, ...] = ()
    finding_count: int = 0
    content: SnapshotContent | None = None
    """Set for READY."""
    statistics: DatasetStatistics | None = None
    """What was found; also of FAILED, when there was anything to count."""
    revision: int = 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the import found, in words for whoever trains on it; the first of many."""
        found = [one for one in self.findings if not one.is_error]
        shown = [
            f"{one.path}{f':{one.line}' if one.line else ''}: {one.message} [{one.code}]"
            for one in found[:_MAX_WARNINGS]
        ]
        more = max(self.finding_count, len(found)) - len(shown)
        return (*shown, f"and {more} more, which the snapshot has") if more > 0 else tuple(shown)

    def ready(
        self,
        content: SnapshotContent,
        findings: tuple[Finding, ...],
        *,
        now: datetime,
        statistics: DatasetStatistics | None = None,
    ) -> "Snapshot":
        """The import succeeded."""
        return self._end(SnapshotState.READY, findings, now, content=content, statistics=statistics)

    def fail(
        self,
        error: bytes,
        findings: tuple[Finding, ...],
        *,
        now: datetime,
        statistics: DatasetStatistics | None = None,
    ) -> "Snapshot":
        """The import failed and stored nothing."""
        return self._end(SnapshotState.FAILED, findings, now, error=error, statistics=statistics)

    def _end(
        self,
        state: SnapshotState,
        findings: tuple[Finding, ...],
        now: datetime,
        *,
        content: SnapshotContent | None = None,
        error: bytes | None = None,
        statistics: DatasetStatistics | None = None,
    ) -> "Snapshot":
        if self.state is not SnapshotState.IMPORTING:
            raise ValueError(f"{self.name} is {self.state}, which is final")
        ordered = sorted(findings, key=lambda finding: not finding.is_error)
        return replace(
            self,
            state=state,
            content=content,
            error=error,
            statistics=statistics,
            findings=tuple(ordered[:MAX_FINDINGS]),
            finding_count=len(findings),
            update_time=now,
        )
