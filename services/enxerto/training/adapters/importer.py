"""Imports labelled images into content-addressed snapshots, or only looks at them."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.store import ObjectStore

from enxerto.training.adapters.import_sources import ImportSources, refused_source
from enxerto.training.adapters.object_store import StoredBlobs, disk_errors
from enxerto.training.domain import DatasetValidation, Finding, Snapshot, SnapshotContent, Source
from enxerto.training.ports import Imported, ImportRefusedError
from enxerto.vision.datasets.findings import Severity
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.scans import Scan
from enxerto.vision.images import ImageLimits
from enxerto.vision.snapshots import write_snapshot
from enxerto.vision.specs import Split, Task

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to look at, and what for."""

    project: str
    source: Source
    task: Task
    split_seed: int


_TELL_EVERY_S = 0.25


class DatasetImporter:
    """An `Importer` of every format and source.

    Args:
        sources: where images come from.
        store: where snapshots go.
        scratch: folder for shards in the making.
        limits: of one image.
        concurrent: imports at the same time; the others wait. As many validations run beside them.
    """

    def __init__(
        self, sources: ImportSources, store: ObjectStore, scratch: Path, limits: ImageLimits, concurrent: int
    ) -> None:
        self._sources = sources
        self._store = store
        self._scratch = scratch
        self._limits = limits
        self._imports = asyncio.Semaphore(concurrent)
        self._validations = asyncio.Semaphore(concurrent)

    async def check(self, project: str, source: Source) -> None:
        """Whether the source may be read and is there."""
        await asyncio.to_thread(self._sources.check, project, source)

    async def run(self, snapshot: Snapshot, task: Task) -> Imported:
        """Import a snapshot's source."""
        stop = threading.Event()
        async with self._imports:
            try:
                return await asyncio.to_thread(self._import, snapshot, task, stop)
            finally:
                # A thread cannot be cancelled: it looks here after every image, so that the process can end.
                stop.set()

    async def validate(
        self, project: str, source: Source, task: Task, split_seed: int
    ) -> AsyncGenerator[tuple[int, int] | DatasetValidation, None]:
        """Look at a source as an import does and store nothing."""
        stop = threading.Event()
        latest = (0, 0)

        def progress(done: int, total: int) -> None:
            nonlocal latest
            latest = (done, total)

        async with self._validations:
            wanted = _Wanted(project, source, task, split_seed)
            work = asyncio.create_task(asyncio.to_thread(self._validate, wanted, stop, progress))
            try:
                told = None
                while not (await asyncio.wait({work}, timeout=_TELL_EVERY_S))[0]:
                    if latest != told:
                        told = latest
                        yield latest
                yield latest
                yield await work
            finally:
                stop.set()
                # The turn ends with the thread, not with the caller's patience.
                with contextlib.suppress(InterruptedError):
                    await asyncio.shield(work)

    def _validate(self, wanted: _Wanted, stop: threading.Event, progress: Progress) -> DatasetValidation:
        try:
            with self._scanned(wanted, stop, progress) as scanned:
                return DatasetValidation(_findings(scanned), scanned.statistics, _split_counts(scanned))
        except ImportRefusedError as refused:
            return DatasetValidation(refused.findings, None, {})

    def _import(self, snapshot: Snapshot, task: Task, stop: threading.Event) -> Imported:
        wanted = _Wanted(snapshot.name.project, snapshot.source, task, snapshot.split_seed)
        with self._scanned(wanted, stop) as scanned:
            findings = _findings(scanned)
            if scanned.errors:
                raise ImportRefusedError(refused_source(findings), findings, scanned.statistics)
            # Shards before the manifest: until the manifest is named by a READY snapshot, nothing refers to them.
            blobs = StoredBlobs(self._store, self._scratch)
            manifest, manifest_sha256 = write_snapshot(scanned, blobs, progress=lambda *_: _check(stop))
            content = SnapshotContent(
                digest=manifest.digest,
                manifest_sha256=manifest_sha256,
                class_names=manifest.class_names,
                split_counts=_split_counts(scanned),
                size_bytes=sum(shard.size_bytes for shard in manifest.shards),
            )
            return Imported(content, findings, scanned.statistics)

    @contextmanager
    def _scanned(
        self, wanted: _Wanted, stop: threading.Event, progress: Progress = lambda _done, _total: None
    ) -> Iterator[Scan]:
        """What the source holds, its files there for as long as the context lasts."""

        def look(done: int, total: int) -> None:
            _check(stop)
            progress(done, total)

        with (
            disk_errors(self._scratch, Path(tempfile.gettempdir())),
            self._sources.folder(wanted.project, wanted.source, lambda: _check(stop)) as folder,
        ):
            yield scan(folder, wanted.task, limits=self._limits, seed=wanted.split_seed, progress=look)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise InterruptedError("the service is stopping, or the caller has left")


def _findings(scanned: Scan) -> tuple[Finding, ...]:
    found = (
        Finding(one.severity is Severity.ERROR, one.path, one.code, one.message, one.line) for one in scanned.findings
    )
    return tuple(sorted(found, key=lambda one: not one.is_error))


def _split_counts(scanned: Scan) -> dict[str, int]:
    return {split.value.lower(): sum(one.split is split for one in scanned.samples) for split in Split}
