"""Use cases of datasets, uploads and snapshots."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violation
from enxerto.kernel.names import DatasetName, ProjectName, SnapshotName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import Dataset, DatasetValidation, Snapshot, Source, UploadSource
from enxerto.training.errors import ArchiveTooLargeError, UploadMismatchError
from enxerto.training.ports import DatasetStore, Idempotency, Importer, UploadStore
from enxerto.training.service.imports import IMPORTS
from enxerto.training.service.signals import Signals
from enxerto.vision.specs import Task


class Datasets:
    """Keeps datasets and starts imports."""

    def __init__(
        self,
        store: DatasetStore,
        uploads: UploadStore,
        importer: Importer,
        signals: Signals,
        clock: Clock,
        *,
        max_archive_bytes: int,
        references: asyncio.Lock,
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._importer = importer
        self._signals = signals
        self._clock = clock
        self._max_archive_bytes = max_archive_bytes
        # An archive that was found must not be cleared away before the snapshot that refers to it is there.
        self._references = references

    async def create(
        self, name: DatasetName, task: Task, display_name: str, labels: dict[str, str], request: Idempotency | None
    ) -> Dataset:
        """Create a dataset without snapshots."""
        now = self._clock.now()
        dataset = Dataset(
            name=name, task=task, display_name=display_name, labels=labels, create_time=now, update_time=now
        )
        return await self._store.create_dataset(dataset, request)

    async def get(self, name: DatasetName) -> Dataset:
        """Read one dataset."""
        return await self._store.get_dataset(name)

    async def list_page(self, parent: ProjectName, page: PageRequest) -> Page[Dataset]:
        """Datasets by name."""
        return await self._store.list_datasets(parent, page)

    async def upload(self, parent: ProjectName, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep an archive whose digest and size must be as announced; nothing is visible before they are.

        Raises:
            ArchiveTooLargeError: over the limit.
            UploadMismatchError: the bytes are others.
        """
        if size_bytes > self._max_archive_bytes:
            message = f"an archive may have {self._max_archive_bytes} bytes, this one has {size_bytes}"
            raise ArchiveTooLargeError(message, subject=str(parent), retry_after_s=0)
        await self._uploads.put(parent.project, sha256, _verified(sha256, size_bytes, chunks))

    async def create_snapshot(
        self, parent: DatasetName, source: Source, split_seed: int, request: Idempotency | None
    ) -> Snapshot:
        """Start an import; a repeated request gets the snapshot of the first, whatever became of its source."""
        await self._store.get_dataset(parent)
        if request and (earlier := await self._store.find_snapshot(parent, request)):
            return earlier
        guard: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
        if isinstance(source, UploadSource):
            guard = self._references
        async with guard:
            await self._importer.check(parent.project, source)
            snapshot = await self._store.create_snapshot(parent, source, split_seed, self._clock.now(), request)
        self._signals.send(IMPORTS)
        return snapshot

    async def validate(
        self, name: DatasetName, source: Source, split_seed: int
    ) -> AsyncGenerator[tuple[int, int] | DatasetValidation, None]:
        """Look at a source as an import would: (images done, images in all) while it reads, what was found last."""
        dataset = await self._store.get_dataset(name)
        await self._importer.check(name.project, source)
        # Closed with this generator, so that a caller who leaves stops the work.
        async with contextlib.aclosing(
            self._importer.validate(name.project, source, dataset.task, split_seed)
        ) as found:
            async for one in found:
                yield one

    async def get_snapshot(self, name: SnapshotName) -> Snapshot:
        """Read one snapshot."""
        return await self._store.get_snapshot(name)

    async def list_snapshots(self, parent: DatasetName, page: PageRequest) -> Page[Snapshot]:
        """Snapshots, newest first."""
        return await self._store.list_snapshots(parent, page)


async def _verified(sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > size_bytes:
            break
        await asyncio.to_thread(digest.update, chunk)
        yield chunk
    found = []
    if size != size_bytes:
        arrived = f"{size} bytes" if size < size_bytes else "more"
        found.append(Violation("header.size_bytes", f"{size_bytes} bytes were announced and {arrived} arrived"))
    elif digest.hexdigest() != sha256:
        found.append(Violation("header.sha256", f"the bytes that arrived have the sha256 {digest.hexdigest()}"))
    if found:
        raise UploadMismatchError(found)
