"""Answers kept by what was sent, for deployments that want it."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from enxerto.inference.domain import Payload, PictureAnswer, Tensor
from enxerto.inference.ports import Meter
from enxerto.inference.service.batching import Share
from enxerto.kernel.names import DeploymentName, VersionName

_HASHED_AT_ONCE_BYTES = 64 * 2**10
"""Hashing more would hold up the event loop, and goes to a thread."""
_ENTRY_BYTES = 1024
"""About what an entry takes beside its numbers."""


@dataclass(frozen=True, slots=True)
class _Entry:
    share: Share
    outputs: frozenset[str]
    """That the answer holds; empty is all of them."""
    size_bytes: int

    def holds(self, outputs: Iterable[str]) -> bool:
        """Whether it has what a request asks for, where nothing is everything."""
        wanted = frozenset(outputs)
        return not self.outputs or (bool(wanted) and wanted <= self.outputs)


@dataclass(slots=True)
class _Cache:
    """Of one deployment. The least recently used entry comes first."""

    max_bytes: int
    versions: frozenset[VersionName]
    entries: OrderedDict[tuple[VersionName, bytes], _Entry] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def drop(self, key: tuple[VersionName, bytes]) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes

    def shrink(self, max_bytes: int) -> None:
        while self.size_bytes > max_bytes:
            self.drop(next(iter(self.entries)))


class ResponseCaches:
    """The caches of all deployments, least recently used first out. Belongs to one event loop."""

    def __init__(self, max_bytes: int, meter: Meter) -> None:
        """Begin with nothing.

        Args:
            max_bytes: of all caches together; beyond it the largest one makes room.
            meter: counts.
        """
        self._max_bytes = max_bytes
        self._meter = meter
        self._caches: dict[DeploymentName, _Cache] = {}

    def keep(self, name: DeploymentName, versions: frozenset[VersionName], max_bytes: int) -> None:
        """Keep so many bytes of answers of these versions of a deployment, and drop all others."""
        if not max_bytes:
            self.forget(name)
            return
        cache = self._caches.setdefault(name, _Cache(max_bytes, versions))
        if versions != cache.versions:
            for key in [key for key in cache.entries if key[0] not in versions]:
                cache.drop(key)
        cache.versions, cache.max_bytes = versions, max_bytes
        cache.shrink(max_bytes)
        self._report()

    def forget(self, name: DeploymentName) -> None:
        """Drop everything of a deployment."""
        if self._caches.pop(name, None) is not None:
            self._report()

    def find(self, name: DeploymentName, version: VersionName, digest: bytes, outputs: Iterable[str]) -> Share | None:
        """The answer of that version to the same content, if it holds the outputs that are asked for."""
        cache = self._caches.get(name)
        entry = cache.entries.get((version, digest)) if cache else None
        found = entry.share if entry is not None and entry.holds(outputs) else None
        if cache is not None and found is not None:
            cache.entries.move_to_end((version, digest))
        self._meter.cache_looked_up(hit=found is not None)
        return found

    def put(
        self, name: DeploymentName, version: VersionName, digest: bytes, outputs: Iterable[str], share: Share
    ) -> None:
        """Keep an answer, unless it names images that have none, its version is gone, or it is too large."""
        cache = self._caches.get(name)
        if cache is None or version not in cache.versions or share.refusals:
            return
        key = version, digest
        entry = _entry(share, frozenset(outputs), cache.entries.get(key))
        cache.drop(key)
        if entry.size_bytes <= min(cache.max_bytes, self._max_bytes):
            cache.entries[key] = entry
            cache.size_bytes += entry.size_bytes
            cache.shrink(cache.max_bytes)
            self._make_room()
        self._report()

    def _make_room(self) -> None:
        while self._size > self._max_bytes:
            largest = max(self._caches.values(), key=lambda cache: cache.size_bytes)
            largest.drop(next(iter(largest.entries)))

    @property
    def _size(self) -> int:
        return sum(cache.size_bytes for cache in self._caches.values())

    def _report(self) -> None:
        self._meter.cached(self._size)


async def digest_of(payload: Payload) -> bytes:
    """32 bytes that name what a replica is sent, but for the outputs that it is asked for: SHA-256, FIPS 180-4."""
    if payload.size_bytes <= _HASHED_AT_ONCE_BYTES:
        return _digest(payload)
    return await asyncio.to_thread(_digest, payload)


def _digest(payload: Payload) -> bytes:
    facts = payload.kind, payload.items, payload.row_shape, payload.datatype, payload.form
    digest = hashlib.sha256(repr(facts).encode())
    for part in payload.parts:
        # Where one part ends is content too: two images are not one of their bytes.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _entry(share: Share, outputs: frozenset[str], before: _Entry | None) -> _Entry:
    """With the outputs that were kept already: Classify and Embed of one image do not push each other out."""
    if before is not None:
        tensors = {tensor.name: tensor for tensor in (*before.share.tensors, *share.tensors)}
        share = replace(share, tensors=tuple(tensors.values()))
        outputs = outputs | before.outputs if outputs and before.outputs else frozenset()
    return _Entry(share, outputs, _size(share))


def _size(share: Share) -> int:
    held: list[Tensor | PictureAnswer] = [*share.tensors, *share.pictures]
    sizes = (len(one.content) if isinstance(one, Tensor) else one.held_bytes + _ENTRY_BYTES for one in held)
    return _ENTRY_BYTES + sum(sizes)
