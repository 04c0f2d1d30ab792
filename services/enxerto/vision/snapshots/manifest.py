"""What a snapshot holds, as a document of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.findings import Finding
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Split, Task

_FORMAT: Final = "enxerto.snapshot/2"


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file, all of one split, rows in order of path."""

    sha256: str
    split: Split
    samples: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds.

    Attributes:
        task: what its annotations answer.
        class_names: in label order.
        shards: in reading order.
        statistics: of all samples.
        rows_sha256: of every sample's path, split, size, annotation and picture, in reading order.
        findings: what the import warned of, at most 1000; not part of the content.
        finding_count: how many there were.
    """

    task: Task
    class_names: tuple[str, ...]
    shards: tuple[Shard, ...]
    statistics: DatasetStatistics
    rows_sha256: str
    findings: tuple[Finding, ...] = ()
    finding_count: int = 0

    @property
    def digest(self) -> str:
        """sha256 of the content: task, class names and samples, however and whenever they were sharded."""
        content = {"task": self.task, "class_names": list(self.class_names), "rows_sha256": self.rows_sha256}
        return hashlib.sha256(canonical(content)).hexdigest()

    def count(self, split: Split) -> int:
        """Samples of one split."""
        return sum(shard.samples for shard in self.shards if shard.split is split)

    @property
    def held_out(self) -> Split:
        """The split that a version is measured on: TEST, or the next best that there is."""
        return next((one for one in (Split.TEST, Split.VAL) if self.count(one)), Split.TRAIN)

    def to_bytes(self) -> bytes:
        """Canonical JSON; the same snapshot has the same bytes."""
        shards = [
            {"sha256": one.sha256, "split": one.split, "samples": one.samples, "size_bytes": one.size_bytes}
            for one in self.shards
        ]
        return canonical(
            {
                "format": _FORMAT,
                "digest": self.digest,
                "task": self.task,
                "class_names": list(self.class_names),
                "shards": shards,
                "statistics": self.statistics.to_json(),
                "rows_sha256": self.rows_sha256,
                "findings": [finding.to_json() for finding in self.findings],
                "finding_count": self.finding_count,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The reverse of `to_bytes`.

        Raises:
            DataLossError: it is not a manifest of this format, or its digest does not fit its content.
        """
        try:
            value = json.loads(data)
            if value["format"] != _FORMAT:
                message = f"the snapshot's format is {value['format']!r}, expected {_FORMAT!r}: import the data again"
                raise DataLossError(message)
            manifest = cls(
                task=Task(value["task"]),
                class_names=tuple(value["class_names"]),
                shards=tuple(Shard(**{**shard, "split": Split(shard["split"])}) for shard in value["shards"]),
                statistics=DatasetStatistics.from_json(value["statistics"]),
                rows_sha256=value["rows_sha256"],
                # Older snapshots do not carry them.
                findings=tuple(Finding.from_json(finding) for finding in value.get("findings", ())),
                finding_count=int(value.get("finding_count", 0)),
            )
            declared = value["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataLossError(f"the snapshot's manifest cannot be read: {error}") from error
        if declared != manifest.digest:
            raise DataLossError("the snapshot's manifest does not have the digest that it declares")
        return manifest


def read_manifest(source: BlobSource, sha256: str) -> Manifest:
    """Load a snapshot's manifest by the sha256 of its blob.

    Raises:
        DataLossError: it is missing or damaged.
    """
    with source.open(sha256) as path:
        return Manifest.from_bytes(path.read_bytes())


def canonical(value: dict[str, Any]) -> bytes:
    """JSON of which the same value has the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
