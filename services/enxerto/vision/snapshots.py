"""Immutable dataset snapshots: Parquet shards and a manifest, both content-addressed."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSink, BlobSource, FolderBlobs
from enxerto.vision.datasets.findings import Finding
from enxerto.vision.datasets.samples import Annotation, Box, StoredSample
from enxerto.vision.datasets.scans import Mask, Sample, Scan
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Split, Task

__all__ = [
    "BlobSink",
    "BlobSource",
    "FolderBlobs",
    "Manifest",
    "Shard",
    "encode_mask",
    "find_samples",
    "read_manifest",
    "read_samples",
    "write_samples",
    "write_snapshot",
]

_FORMAT: Final = "enxerto.snapshot/2"
_SHARD_BYTES: Final = 128 * 1024 * 1024
_ROW_GROUP_BYTES: Final = 8 * 1024 * 1024
_ROW_GROUP_ROWS: Final = 1024
_MOST_FINDINGS: Final = 1000
_BOX: Final = pa.struct(
    [
        pa.field("label", pa.int32(), nullable=False),
        pa.field("x_min", pa.float64(), nullable=False),
        pa.field("y_min", pa.float64(), nullable=False),
        pa.field("x_max", pa.float64(), nullable=False),
        pa.field("y_max", pa.float64(), nullable=False),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
_SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("boxes", pa.list_(_BOX)),
        pa.field("mask", pa.binary()),
        pa.field("image", pa.binary(), nullable=False),
    ]
)


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
        return hashlib.sha256(_canonical(content)).hexdigest()

    def count(self, split: Split) -> int:
        """Samples of one split."""
        return sum(shard.samples for shard in self.shards if shard.split is split)

    def to_bytes(self) -> bytes:
        """Canonical JSON; the same snapshot has the same bytes."""
        shards = [
            {"sha256": one.sha256, "split": one.split, "samples": one.samples, "size_bytes": one.size_bytes}
            for one in self.shards
        ]
        return _canonical(
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


def write_snapshot(
    scan: Scan,
    sink: BlobSink,
    *,
    shard_bytes: int = _SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, str]:
    """Store a scanned folder; shards and manifest go to `sink`, the manifest last.

    Memory stays below two row groups (about 8 MiB each, or one larger image) and disk below one shard.

    Args:
        scan: without errors.
        sink: where the blobs go.
        shard_bytes: about the largest shard, in bytes of images and masks.
        progress: told (images stored, images in all); may raise to stop.

    Returns:
        The manifest, and the sha256 of the blob that holds it.

    Raises:
        ValueError: the scan has errors.
        DataLossError: an image changed since it was scanned.
    """
    if scan.errors:
        raise ValueError(f"the scan has {len(scan.errors)} errors")
    done = 0

    def stored(split: Split) -> Iterator[StoredSample]:
        nonlocal done
        for sample in sorted((s for s in scan.samples if s.split is split), key=lambda sample: sample.path):
            yield _load(scan.root, sample)
            done += 1
            if progress is not None:
                progress(done, len(scan.samples))

    return write_samples(
        stored,
        sink,
        task=scan.task,
        class_names=scan.class_names,
        statistics=scan.statistics,
        findings=scan.findings,
        shard_bytes=shard_bytes,
    )


def write_samples(
    samples: Callable[[Split], Iterable[StoredSample]],
    sink: BlobSink,
    *,
    task: Task,
    class_names: tuple[str, ...],
    statistics: DatasetStatistics,
    findings: Sequence[Finding] = (),
    shard_bytes: int = _SHARD_BYTES,
) -> tuple[Manifest, str]:
    """Store samples as a snapshot.

    Args:
        samples: those of a split, in order of path; asked once for each split.
        sink: where the blobs go.
        task: what the annotations answer.
        class_names: in label order.
        statistics: of all samples.
        findings: warnings of the import; the first thousand are kept.
        shard_bytes: about the largest shard, in bytes of images and masks.

    Returns:
        The manifest, and the sha256 of the blob that holds it.
    """
    rows = hashlib.sha256()
    shards: list[Shard] = []
    with tempfile.TemporaryDirectory(prefix="enxerto-snapshot-") as scratch:
        file = Path(scratch) / "shard.parquet"
        for split in Split:
            waiting = iter(samples(split))
            first = next(waiting, None)
            while first is not None:
                count, first = _write_shard(file, first, waiting, rows.update, shard_bytes)
                shards.append(Shard(sink.put(file), split, count, file.stat().st_size))
                file.unlink()
    kept = tuple(findings[:_MOST_FINDINGS])
    manifest = Manifest(task, class_names, tuple(shards), statistics, rows.hexdigest(), kept, len(findings))
    return manifest, sink.put(manifest.to_bytes())


def read_manifest(source: BlobSource, sha256: str) -> Manifest:
    """Load a snapshot's manifest by the sha256 of its blob.

    Raises:
        DataLossError: it is missing or damaged.
    """
    with source.open(sha256) as path:
        return Manifest.from_bytes(path.read_bytes())


def read_samples(manifest: Manifest, source: BlobSource, split: Split) -> Iterator[StoredSample]:
    """The samples of one split, in order of path, a row group in memory at a time.

    Raises:
        DataLossError: a shard is missing or damaged, or an image is not the one that was stored.
    """
    for shard in manifest.shards:
        if shard.split is not split:
            continue
        with source.open(shard.sha256) as path:
            try:
                yield from _read_shard(path)
            except (pa.ArrowException, OSError) as error:
                # A page whose checksum does not fit is an OSError to pyarrow.
                raise DataLossError(f"shard {shard.sha256} cannot be read: {error}") from error


def find_samples(manifest: Manifest, source: BlobSource, paths: Iterable[str]) -> dict[str, StoredSample]:
    """A few samples by their paths, hardly reading the others; a path that the snapshot does not hold is missing.

    Raises:
        DataLossError: a shard is missing or damaged, or an image is not the one that was stored.
    """
    wanted, found = set(paths), dict[str, StoredSample]()
    for shard in manifest.shards:
        if len(found) == len(wanted):
            break
        with source.open(shard.sha256) as path:
            try:
                found.update((sample.path, sample) for sample in _read_shard(path, wanted))
            except (pa.ArrowException, OSError) as error:
                raise DataLossError(f"shard {shard.sha256} cannot be read: {error}") from error
    return found


def encode_mask(mask: Mask) -> bytes:
    """PNG of one channel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _load(root: Path, sample: Sample) -> StoredSample:
    data = (root / sample.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise DataLossError(f"{sample.path} changed while it was imported")
    mask = encode_mask(sample.mask.render(sample.width, sample.height)) if sample.mask else None
    annotation = Annotation(sample.label, sample.boxes, mask)
    return StoredSample(sample.path, sample.split, sample.width, sample.height, data, annotation)


def _write_shard(
    file: Path,
    first: StoredSample,
    waiting: Iterator[StoredSample],
    digest: Callable[[bytes], None],
    limit_bytes: int,
) -> tuple[int, StoredSample | None]:
    """Write samples up to the limit; returns how many, and the sample that begins the next shard."""
    count = shard_size = group_size = 0
    sample: StoredSample | None = first
    # Images are compressed already, and every digest is different.
    with pq.ParquetWriter(
        file, _SCHEMA, compression="none", use_dictionary=["split"], write_statistics=False, write_page_checksum=True
    ) as writer:
        rows: list[dict[str, Any]] = []
        while sample is not None:
            row = _to_row(sample)
            size = len(row["image"]) + len(row["mask"] or b"")
            if count and shard_size + size > limit_bytes:
                break
            digest(_row_digest(row))
            rows.append(row)
            count, shard_size, group_size = count + 1, shard_size + size, group_size + size
            if group_size >= _ROW_GROUP_BYTES or len(rows) >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                rows, group_size = [], 0
            sample = next(waiting, None)
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
    return count, sample


def _to_row(sample: StoredSample) -> dict[str, Any]:
    known = sample.annotation
    boxes = [
        {
            "label": box.label,
            "x_min": box.x_min,
            "y_min": box.y_min,
            "x_max": box.x_max,
            "y_max": box.y_max,
            "crowd": box.crowd,
        }
        for box in known.boxes
    ]
    return {
        "path": sample.path,
        "split": sample.split.value,
        "sha256": hashlib.sha256(sample.data).hexdigest(),
        "width": sample.width,
        "height": sample.height,
        "label": known.label,
        # None and no boxes are the same to whoever reads: the picture is background.
        "boxes": boxes or None,
        "mask": known.mask,
        "image": sample.data,
    }


def _row_digest(row: dict[str, Any]) -> bytes:
    content = {key: value for key, value in row.items() if key not in ("image", "mask")}
    if row["mask"] is not None:
        # Of the pixels: another version of the encoder may make another file of the same mask.
        with Image.open(io.BytesIO(row["mask"]), formats=("PNG",)) as image:
            pixels = np.asarray(image)
        content["mask_sha256"] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return hashlib.sha256(_canonical(content)).digest()


def _read_shard(path: Path, wanted: set[str] | None = None) -> Iterator[StoredSample]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        # One group at a time: a batch that spans groups could hold a thousand large photos.
        for group in range(file.num_row_groups):
            chosen: Iterable[int] = range(file.metadata.row_group(group).num_rows)
            if wanted is not None:
                paths = file.read_row_group(group, columns=["path"]).column("path").to_pylist()
                chosen = [position for position, path in enumerate(paths) if path in wanted]
                if not chosen:
                    continue
            table = file.read_row_group(group)
            for position in chosen:
                yield _from_row({name: table.column(name)[position].as_py() for name in _SCHEMA.names})


def _from_row(row: dict[str, Any]) -> StoredSample:
    if hashlib.sha256(row["image"]).hexdigest() != row["sha256"]:
        raise DataLossError(f"image {row['path']!r} is not the one that was stored")
    annotation = Annotation(row["label"], tuple(Box(**box) for box in row["boxes"] or ()), row["mask"])
    return StoredSample(row["path"], Split(row["split"]), row["width"], row["height"], row["image"], annotation)


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
