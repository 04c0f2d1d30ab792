"""Immutable dataset snapshots: Parquet shards and a manifest, both content-addressed."""

from enxerto.vision.blobs import BlobSink, BlobSource, FolderBlobs
from enxerto.vision.snapshots.manifest import Manifest, Shard, read_manifest
from enxerto.vision.snapshots.reading import find_samples, read_samples
from enxerto.vision.snapshots.rows import encode_mask
from enxerto.vision.snapshots.writing import write_samples, write_snapshot

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
