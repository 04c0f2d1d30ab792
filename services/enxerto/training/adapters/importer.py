"""Imports image folders and archives into content-addressed snapshots."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import ObjectStore

from enxerto.kernel.errors import FailedPreconditionError, NotFoundError, PreconditionViolation, Violation
from enxerto.training.adapters.object_store import StoredBlobs, store_errors, upload_key
from enxerto.training.domain import Finding, PathSource, Snapshot, SnapshotContent, Source
from enxerto.training.errors import PathNotAllowedError, SourceRefusedError
from enxerto.training.ports import ImportRefusedError
from enxerto.vision.archives import ArchiveError, ArchiveLimits, extract
from enxerto.vision.datasets.findings import Severity
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.images import ImageLimits
from enxerto.vision.snapshots import write_snapshot
from enxerto.vision.specs import Split

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """What an import may cost."""

    archive: ArchiveLimits
    image: ImageLimits


class ImageFolderImporter:
    """An `Importer` of class folders, and of archives of them.

    Args:
        store: where uploads are and snapshots go.
        scratch: folder to unpack in.
        roots: folders that `path` sources may lie in.
        limits: what an import may cost.
        concurrent: imports at the same time; the others wait.
    """

    def __init__(
        self, store: ObjectStore, scratch: Path, roots: tuple[Path, ...], limits: ImportLimits, concurrent: int
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._roots = roots
        self._limits = limits
        self._turn = asyncio.Semaphore(concurrent)

    async def check(self, project: str, source: Source) -> None:
        """Whether the source may be read and is there."""
        if isinstance(source, PathSource):
            await asyncio.to_thread(allowed_path, source.path, self._roots)
            return
        key = upload_key(project, source.sha256)
        with store_errors(key):
            try:
                await obstore.head_async(self._store, key)
            except FileNotFoundError:
                raise NotFoundError("Upload", f"projects/{project}/uploads/{source.sha256}") from None

    async def run(self, snapshot: Snapshot) -> tuple[SnapshotContent, tuple[Finding, ...]]:
        """Import a snapshot's source."""
        stop = threading.Event()
        async with self._turn:
            try:
                return await asyncio.to_thread(self._import, snapshot, stop)
            finally:
                # A thread cannot be cancelled: it looks here after every image, so that the process can end.
                stop.set()

    def _import(self, snapshot: Snapshot, stop: threading.Event) -> tuple[SnapshotContent, tuple[Finding, ...]]:
        def look(_done: int, _total: int) -> None:
            if stop.is_set():
                raise InterruptedError("the service is stopping")

        with self._folder(snapshot) as folder:
            scanned = scan(folder, limits=self._limits.image, seed=snapshot.split_seed, progress=look)
            findings = tuple(
                Finding(one.severity is Severity.ERROR, one.path, one.code, one.message) for one in scanned.findings
            )
            if scanned.errors:
                raise ImportRefusedError(
                    SourceRefusedError([Violation(one.path, f"{one.code}: {one.message}") for one in scanned.errors]),
                    findings,
                )
            # Shards before the manifest: until the manifest is named by a READY snapshot, nothing refers to them.
            blobs = StoredBlobs(self._store, self._scratch)
            manifest, manifest_sha256 = write_snapshot(scanned, blobs)
        content = SnapshotContent(
            digest=manifest.digest,
            manifest_sha256=manifest_sha256,
            class_names=manifest.class_names,
            split_counts={split.value.lower(): manifest.count(split) for split in Split},
            size_bytes=sum(shard.size_bytes for shard in manifest.shards),
        )
        return content, findings

    @contextmanager
    def _folder(self, snapshot: Snapshot) -> Iterator[Path]:
        source = snapshot.source
        if isinstance(source, PathSource):
            path = allowed_path(source.path, self._roots)
            if path.is_dir():
                yield path
                return
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="import-") as scratch:
            if isinstance(source, PathSource):
                archive = path
            else:
                archive = Path(scratch) / "archive"
                self._fetch(upload_key(snapshot.name.project, source.sha256), archive)
            unpacked = Path(scratch) / "unpacked"
            try:
                extract(archive, unpacked, self._limits.archive)
            except ArchiveError as error:
                raise _refused_archive(error) from error
            yield unpacked
            shutil.rmtree(unpacked, ignore_errors=True)

    def _fetch(self, key: str, into: Path) -> None:
        with store_errors(key), into.open("wb") as file:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)


def _refused_archive(error: ArchiveError) -> ImportRefusedError:
    violations = [Violation(one.member or "archive", f"{one.code}: {one.description}") for one in error.offenders]
    findings = tuple(Finding(True, one.member or ".", one.code, one.description) for one in error.offenders)
    return ImportRefusedError(SourceRefusedError(violations), findings)


def allowed_path(path: str, roots: tuple[Path, ...]) -> Path:
    """The real path, when it lies below one of the roots and something is there.

    Raises:
        PathNotAllowedError: it lies elsewhere, links followed.
        FailedPreconditionError: nothing readable is there.
    """
    real = Path(path).resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise PathNotAllowedError(path, roots)
    if not real.is_dir() and not real.is_file():
        description = "there is no such folder or archive on the training service's machine"
        raise FailedPreconditionError(f"{path}: {description}", [PreconditionViolation("PATH", path, description)])
    return real
