"""Imported weights: bytes for jobs in the blob store, and a copy in the registry that other clusters can take."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import obstore
from obstore.store import ObjectStore

from enxerto.kernel.errors import DataLossError
from enxerto.training.adapters.object_store import blob_key, copy, disk_errors, incoming_key, put, store_errors
from enxerto.training.adapters.registry_client import GrpcRegistry
from enxerto.training.ports import ImportedWeights

WEIGHTS_PROJECT = "projects/base-models"
"""The registry keeps blobs by project; weights of base models are every project's."""
_MAX_HEAD_BYTES = 16 * 2**20


class RegistryWeightsVault:
    """A `WeightsVault`.

    Args:
        store: where jobs read.
        registry: keeps the copy.
        scratch: folder where weights are received.
    """

    def __init__(self, store: ObjectStore, registry: GrpcRegistry, scratch: Path) -> None:
        self._store = store
        self._registry = registry
        self._scratch = scratch

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, bytes]:
        """Store bytes for a job that checks them; they count only once `chunks` has ended."""
        return await self._store_at(incoming_key, chunks)

    async def _store_at(self, key_of: Callable[[str], str], chunks: AsyncIterator[bytes]) -> tuple[str, bytes]:
        digest = hashlib.sha256()
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="weights-") as folder:
            path = Path(folder) / "weights"
            with disk_errors(self._scratch), path.open("wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(digest.update, chunk)
            head = await asyncio.to_thread(_head, path)
            key = key_of(digest.hexdigest())
            with store_errors(key):
                await asyncio.to_thread(put, self._store, key, path)
        return digest.hexdigest(), head

    async def publish(self, sha256: str, size_bytes: int) -> None:
        """Put received bytes where jobs read weights, and copy them to the registry."""
        key = blob_key(sha256)
        with store_errors(incoming_key(sha256)):
            if not await self._has(key):
                await asyncio.to_thread(copy, self._store, incoming_key(sha256), key)
        await self._registry.upload(WEIGHTS_PROJECT, sha256, size_bytes)

    async def fetch(self, weights: ImportedWeights) -> None:
        """Copy from the registry for jobs, when it is not there already."""
        key = blob_key(weights.sha256)
        with store_errors(key):
            there = await self._has(key)
        if there:
            return
        found, _ = await self._store_at(blob_key, self._registry.download(WEIGHTS_PROJECT, weights.sha256))
        if found != weights.sha256:
            raise DataLossError(f"the registry's copy of the weights of {weights.base_model} is damaged")

    async def _has(self, key: str) -> bool:
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True


def _head(path: Path) -> bytes:
    """The length and the header of a safetensors file, as far as they are there."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(min(int.from_bytes(length, "little"), _MAX_HEAD_BYTES))
