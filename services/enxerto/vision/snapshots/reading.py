"""Samples out of a snapshot's shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.snapshots.manifest import Manifest
from enxerto.vision.snapshots.rows import SCHEMA, from_row
from enxerto.vision.specs import Split


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
                yield from_row({name: table.column(name)[position].as_py() for name in SCHEMA.names})
