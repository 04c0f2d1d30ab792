"""Use cases of the registry."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ModelName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest
from enxerto.registry.domain import Blob, Model, ModelContent, Request, ResolvedVersion, Version, VersionContent
from enxerto.registry.errors import (
    AliasNotFoundError,
    BlobCorruptError,
    BlobNotFoundError,
    BlobsMissingError,
    StorageFullError,
)
from enxerto.registry.ports import BlobStore, MetadataStore, Meter

if TYPE_CHECKING:
    from hashlib import _Hash

# Below this a thread costs more than the hash.
_HASH_INLINE_BYTES = 64 * 1024


class Registry:
    """Keeps models, immutable versions, aliases and bytes."""

    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStore,
        clock: Clock,
        meter: Meter,
        *,
        max_blob_bytes: int,
        min_free_bytes: int,
    ) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._clock = clock
        self._meter = meter
        self._max_blob_bytes = max_blob_bytes
        self._min_free_bytes = min_free_bytes

    async def create_model(self, name: ModelName, content: ModelContent, request_id: str) -> Model:
        """Create a model without versions."""
        request = Request.of(request_id, name, content)
        return await self._metadata.create_model(Model.create(name, content, self._clock.now()), request)

    async def get_model(self, name: ModelName) -> Model:
        """Read a model."""
        return await self._metadata.get_model(name)

    async def list_models(self, parent: ProjectName, page: PageRequest) -> Page[Model]:
        """List a project's models by name."""
        return await self._metadata.list_models(parent, page)

    async def create_version(self, parent: ModelName, content: VersionContent, request_id: str) -> Version:
        """Create the next version of a model.

        Raises:
            OutputsOfAnotherTaskError: the graph's outputs are not those of the model's task.
            BlobsMissingError: names every artifact whose bytes are not whole in the registry.
        """
        model = await self._metadata.get_model(parent)
        model.require_outputs(content)
        digests = sorted({artifact.sha256 for artifact in content.artifacts})
        found = await self._metadata.find_blobs(parent.parent, digests)
        missing = {item.filename: item.sha256 for item in content.artifacts if item.sha256 not in found}
        if missing:
            raise BlobsMissingError(parent.parent, missing)
        request = Request.of(request_id, parent, content)
        sized = content.with_sizes({digest: blob.size_bytes for digest, blob in found.items()})
        version, created = await self._metadata.create_version(parent, sized, self._clock.now(), request)
        if created:
            self._meter.count_version(version.state)
        return version

    async def get_version(self, reference: VersionReference) -> Version:
        """Read a version by number or alias."""
        number = reference.number
        if number is None:
            model = await self._metadata.get_model(reference.parent)
            number = model.aliases.get(reference.version)
            if number is None:
                raise AliasNotFoundError(model.name, reference.version)
        return await self._metadata.get_version(VersionName(reference.project, reference.model, number))

    async def resolve(self, references: Collection[VersionReference]) -> Mapping[VersionReference, ResolvedVersion]:
        """What numbers and aliases mean now; a reference that means nothing is left out."""
        models = await self._metadata.find_models({reference.parent for reference in references})
        meant = {
            reference: version
            for reference in references
            if (model := models.get(reference.parent)) and (version := model.version(reference))
        }
        # Versions never change and never go, so that reading them after their models is safe.
        states = await self._metadata.find_states(set(meant.values()))
        return {reference: ResolvedVersion(version, states[version]) for reference, version in meant.items()}

    async def list_versions(self, parent: ModelName, page: PageRequest) -> Page[Version]:
        """List a model's versions, newest first."""
        return await self._metadata.list_versions(parent, page)

    async def set_alias(self, model: ModelName, alias: str, version: VersionName, etag: str) -> Model:
        """Point an alias to a READY version of the same model, atomically."""
        # Versions never change, so that reading this one outside of the update is safe.
        target = await self._metadata.get_version(version)
        now = self._clock.now()
        updated = await self._metadata.update_model(
            model, lambda current: current.with_alias(alias, target, etag=etag, now=now)
        )
        self._meter.count_alias_move()
        return updated

    async def delete_alias(self, model: ModelName, alias: str, etag: str) -> Model:
        """Remove an alias."""
        now = self._clock.now()
        updated = await self._metadata.update_model(
            model, lambda current: current.without_alias(alias, etag=etag, now=now)
        )
        self._meter.count_alias_move()
        return updated

    async def upload(self, declared: Blob, chunks: AsyncIterator[bytes]) -> Blob:
        """Keep bytes whose digest and size must be as declared; nothing is visible before they are.

        Bytes that are there already are written again, which repairs a blob that was damaged on its disk.

        Raises:
            InvalidArgumentError: names `header.sha256` or `header.size_bytes` when the bytes are others.
            StorageFullError: no room.
        """
        if declared.size_bytes > self._max_blob_bytes:
            violations = Violations()
            violations.add("header.size_bytes", f"must be at most {self._max_blob_bytes}")
            violations.raise_if_any()
        free = await self._blobs.free_bytes()
        if free is not None and free - declared.size_bytes < self._min_free_bytes:
            raise StorageFullError(
                f"{declared.size_bytes} bytes do not fit: {free} are free and {self._min_free_bytes} must stay free"
            )
        stored = False
        try:
            await self._blobs.put(declared.sha256, declared.size_bytes, self._verified(declared, chunks))
            await self._metadata.add_blob(declared, self._clock.now())
            stored = True
        finally:
            self._meter.count_upload(stored=stored)
        return declared

    async def download(self, parent: ProjectName, sha256: str) -> tuple[Blob, AsyncGenerator[bytes, None]]:
        """Find a blob and stream its bytes, at most 1 MiB at once.

        The last bytes are held back until the digest of all is right, so that nobody mistakes damaged bytes for whole.

        Raises:
            BlobNotFoundError: the project has no such blob.
            BlobCorruptError: while streaming, when the stored bytes are not what was stored.
        """
        found = await self._metadata.find_blobs(parent, [sha256])
        if sha256 not in found:
            raise BlobNotFoundError(parent, sha256)
        return found[sha256], self._checked(found[sha256])

    async def _verified(self, declared: Blob, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        digest, size = hashlib.sha256(), 0
        violations = Violations()
        async for chunk in chunks:
            size += len(chunk)
            self._meter.count_received(len(chunk))
            if size > declared.size_bytes:
                violations.add("header.size_bytes", f"more than the declared {declared.size_bytes} bytes arrived")
                violations.raise_if_any()
            await _update(digest, chunk)
            yield chunk
        if size != declared.size_bytes:
            violations.add("header.size_bytes", f"{size} bytes arrived, {declared.size_bytes} were declared")
        if digest.hexdigest() != declared.sha256:
            violations.add("header.sha256", f"the bytes that arrived have the sha256 {digest.hexdigest()}")
        violations.raise_if_any()

    async def _checked(self, blob: Blob) -> AsyncGenerator[bytes, None]:
        digest, held = hashlib.sha256(), b""
        async with aclosing(self._blobs.read(blob.sha256, blob.size_bytes)) as chunks:
            async for chunk in chunks:
                await _update(digest, chunk)
                if held:
                    self._meter.count_sent(len(held))
                    yield held
                held = chunk
        if digest.hexdigest() != blob.sha256:
            raise BlobCorruptError(blob.sha256, f"the stored bytes have the sha256 {digest.hexdigest()}")
        if held:
            self._meter.count_sent(len(held))
            yield held


async def _update(digest: "_Hash", chunk: bytes) -> None:
    if len(chunk) < _HASH_INLINE_BYTES:
        digest.update(chunk)
    else:
        await asyncio.to_thread(digest.update, chunk)
