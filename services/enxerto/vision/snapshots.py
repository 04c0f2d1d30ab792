"""Immutable dataset snapshots: Parquet shards and a manifest, both content-addressed."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from enxerto.kernel.errors import DataLossError
from enxerto.vision.imagefolder import Sample, Scan
from enxerto.vision.specs import Split

_FORMAT: Final = "enxerto.snapshot/1"
_SHARD_BYTES: Final = 128 * 1024 * 1024
_ROW_GROUP_BYTES: Final = 8 * 1024 * 1024
_ROW_GROUP_ROWS: Final = 1024
_CHUNK: Final = 1024 * 1024
_SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)


class BlobSink(Protocol):
    """Where immutable bytes are put; putting the same bytes twice stores them once."""

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a file's content, and return the sha256 in hexadecimal."""
        ...


class BlobSource(Protocol):
    """Where immutable bytes are read."""

    def open(self, sha256: str) -> AbstractContextManager[Path]:
        """A local file with the blob, there for as long as the context lasts; missing: `DataLossError`."""
        ...


class FolderBlobs:
    """Blobs in a local folder, both sink and source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a file's content, and return the sha256 in hexadecimal."""
        digest = _file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        target = self.folder / digest
        if not target.exists():
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as whole:
                if isinstance(content, Path):
                    with content.open("rb") as file:
                        shutil.copyfileobj(file, whole, _CHUNK)
                else:
                    whole.write(content)
            Path(whole.name).replace(target)
        return digest

    def open(self, sha256: str) -> AbstractContextManager[Path]:
        """A local file with the blob; missing: `DataLossError`."""
        return _Present(self.folder / sha256)


class _Present:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        if not self._path.is_file():
            raise DataLossError(f"blob {self._path.name} is missing")
        return self._path

    def __exit__(self, *_: object) -> None:
        return None


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
        class_names: in label order.
        samples: in order of path.
        shards: in reading order.
    """

    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        """sha256 of the canonical content: class names and samples, however and whenever they were sharded."""
        return hashlib.sha256(_canonical(self._content())).hexdigest()

    def count(self, split: Split) -> int:
        """Samples of one split."""
        return sum(sample.split is split for sample in self.samples)

    def to_bytes(self) -> bytes:
        """Canonical JSON; the same snapshot has the same bytes."""
        shards = [
            {"sha256": one.sha256, "split": one.split, "samples": one.samples, "size_bytes": one.size_bytes}
            for one in self.shards
        ]
        return _canonical({**self._content(), "format": _FORMAT, "digest": self.digest, "shards": shards})

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The reverse of `to_bytes`.

        Raises:
            DataLossError: it is not a manifest of this format, or its digest does not fit its content.
        """
        try:
            value = json.loads(data)
            if value["format"] != _FORMAT:
                raise DataLossError(f"the snapshot's format is {value['format']!r}, expected {_FORMAT!r}")
            manifest = cls(
                class_names=tuple(value["class_names"]),
                samples=tuple(Sample(**{**sample, "split": Split(sample["split"])}) for sample in value["samples"]),
                shards=tuple(Shard(**{**shard, "split": Split(shard["split"])}) for shard in value["shards"]),
            )
            declared = value["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataLossError(f"the snapshot's manifest cannot be read: {error}") from error
        if declared != manifest.digest:
            raise DataLossError("the snapshot's manifest does not have the digest that it declares")
        return manifest

    def _content(self) -> dict[str, Any]:
        samples = [
            {
                "path": sample.path,
                "label": sample.label,
                "split": sample.split,
                "sha256": sample.sha256,
                "width": sample.width,
                "height": sample.height,
                "size_bytes": sample.size_bytes,
            }
            for sample in sorted(self.samples, key=lambda sample: sample.path)
        ]
        return {"class_names": list(self.class_names), "samples": samples}


def write_snapshot(scan: Scan, sink: BlobSink, *, shard_bytes: int = _SHARD_BYTES) -> tuple[Manifest, str]:
    """Store a scanned folder; shards and manifest go to `sink`, the manifest last.

    Memory stays below one row group (about 8 MiB, or one larger image) and disk below one shard.

    Args:
        scan: without errors.
        sink: where the blobs go.
        shard_bytes: about the largest shard, in bytes of images.

    Returns:
        The manifest, and the sha256 of the blob that holds it.

    Raises:
        ValueError: the scan has errors.
        DataLossError: an image changed since it was scanned.
    """
    if scan.errors:
        raise ValueError(f"the scan has {len(scan.errors)} errors")
    shards: list[Shard] = []
    with tempfile.TemporaryDirectory(prefix="enxerto-snapshot-") as scratch:
        for split in Split:
            samples = sorted((s for s in scan.samples if s.split is split), key=lambda sample: sample.path)
            for part in _parts(samples, shard_bytes):
                file = Path(scratch) / "shard.parquet"
                _write_shard(file, scan.root, part)
                size = file.stat().st_size
                shards.append(Shard(sink.put(file), split, len(part), size))
                file.unlink()
    manifest = Manifest(scan.class_names, scan.samples, tuple(shards))
    return manifest, sink.put(manifest.to_bytes())


def read_manifest(source: BlobSource, sha256: str) -> Manifest:
    """Load a snapshot's manifest by the sha256 of its blob.

    Raises:
        DataLossError: it is missing or damaged.
    """
    with source.open(sha256) as path:
        return Manifest.from_bytes(path.read_bytes())


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One sample with its bytes."""

    path: str
    label: int
    data: bytes


def read_images(manifest: Manifest, source: BlobSource, split: Split) -> Iterator[EncodedImage]:
    """The images of one split, in order of path, a row group in memory at a time.

    Raises:
        DataLossError: a shard is missing or damaged, or an image is not the one that was stored.
    """
    for shard in manifest.shards:
        if shard.split is not split:
            continue
        with source.open(shard.sha256) as path:
            try:
                yield from _read_shard(path)
            except pa.ArrowException as error:
                raise DataLossError(f"shard {shard.sha256} cannot be read: {error}") from error


def _read_shard(path: Path) -> Iterator[EncodedImage]:
    with pq.ParquetFile(path) as file:
        # One group at a time: a batch that spans groups could hold a thousand large photos.
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["path", "label", "sha256", "image"])
            columns = (table.column(name) for name in ("path", "label", "sha256", "image"))
            for name, label, sha256, image in zip(*columns, strict=True):
                data = image.as_py()
                if hashlib.sha256(data).hexdigest() != sha256.as_py():
                    raise DataLossError(f"image {name.as_py()!r} is not the one that was stored")
                yield EncodedImage(name.as_py(), label.as_py(), data)


def _parts(samples: Sequence[Sample], limit_bytes: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    size = 0
    for sample in samples:
        if part and size + sample.size_bytes > limit_bytes:
            yield part
            part, size = [], 0
        part.append(sample)
        size += sample.size_bytes
    if part:
        yield part


def _write_shard(file: Path, root: Path, samples: Iterable[Sample]) -> None:
    # Images are compressed already, and every digest is different.
    with pq.ParquetWriter(file, _SCHEMA, compression="none", use_dictionary=["split"]) as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for sample in samples:
            data = (root / sample.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != sample.sha256:
                raise DataLossError(f"{sample.path} changed while it was imported")
            rows.append(
                {
                    "path": sample.path,
                    "label": sample.label,
                    "split": sample.split.value,
                    "sha256": sample.sha256,
                    "width": sample.width,
                    "height": sample.height,
                    "image": data,
                }
            )
            size += len(data)
            if size >= _ROW_GROUP_BYTES or len(rows) >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
