"""Samples into the shards of a snapshot."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSink
from enxerto.vision.datasets.findings import Finding
from enxerto.vision.datasets.samples import Annotation, StoredSample
from enxerto.vision.datasets.scans import Sample, Scan
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.snapshots.manifest import Manifest, Shard
from enxerto.vision.snapshots.rows import SCHEMA, encode_mask, row_digest, to_row
from enxerto.vision.specs import Split, Task

_SHARD_BYTES: Final = 128 * 1024 * 1024
_ROW_GROUP_BYTES: Final = 8 * 1024 * 1024
_ROW_GROUP_ROWS: Final = 1024
_MOST_FINDINGS: Final = 1000


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
        file, SCHEMA, compression="none", use_dictionary=["split"], write_statistics=False, write_page_checksum=True
    ) as writer:
        rows: list[dict[str, Any]] = []
        while sample is not None:
            row = to_row(sample)
            size = len(row["image"]) + len(row["mask"] or b"")
            if count and shard_size + size > limit_bytes:
                break
            digest(row_digest(row))
            rows.append(row)
            count, shard_size, group_size = count + 1, shard_size + size, group_size + size
            if group_size >= _ROW_GROUP_BYTES or len(rows) >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows, group_size = [], 0
            sample = next(waiting, None)
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return count, sample
