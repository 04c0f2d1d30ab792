"""Blobs as objects `blobs/<sha256>` in a local folder or on S3, through obstore.

An object is written in parts and appears when the last part is in, in a folder when all are on the disk; a writer that
stops before leaves nothing visible.
A process that is killed leaves a half-written file, which `sweep` removes; on S3 that is a lifecycle rule's work
(`AbortIncompleteMultipartUpload`), and so are parts that were on their way while their upload was aborted.
"""

import asyncio
import errno
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store

from enxerto.registry.errors import BlobCorruptError, StorageFullError, StorageUnavailableError
from enxerto.runtime.durable_files import partial_of, settle
from enxerto.runtime.errors import StartupError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

# obstore has a class of its own for this and raises the builtin one.
_ABSENT = (NotFoundError, FileNotFoundError)
_FOLDER = "blobs"
# A half-written file of a folder carries a number behind the final name.
_PARTIAL = re.compile(r"[0-9a-f]{64}#\d+")
_PART_BYTES = 8 * 2**20
# S3 takes at most 10,000 parts.
_MAX_PARTS = 9_000
_PARTS_IN_FLIGHT = 2
_READ_BYTES = 8 * 2**20
_CHUNK_BYTES = 2**20


class ObjectBlobStore:
    """A `BlobStore` on any object store. Memory is bounded by a few parts for each transfer."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        """Use a store.

        Args:
            store: where objects go.
            folder: where a local store keeps its files; None for a remote one.
        """
        self._store = store
        self._folder = folder

    async def put(self, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep bytes; they become visible all at once after `chunks` has ended."""
        source = _Abandonable(chunks)
        writing = asyncio.ensure_future(self._write(_key(sha256), size_bytes, source))
        try:
            # Cancelling the write itself would leave the parts that a remote store already has; failing its source
            # makes it remove them.
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            source.abandon()
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()
            raise

    async def _write(self, key: str, size_bytes: int, source: AsyncIterator[bytes]) -> None:
        with _translated():
            if self._folder is not None:
                await _write_file(self._folder / key, source)
            elif size_bytes <= _PART_BYTES:
                # One request instead of three, and the only way for an empty object.
                whole = b"".join([chunk async for chunk in source])
                await obstore.put_async(self._store, key, whole, use_multipart=False)
            else:
                await obstore.put_async(
                    self._store,
                    key,
                    source,
                    use_multipart=True,
                    chunk_size=max(_PART_BYTES, -(-size_bytes // _MAX_PARTS)),
                    max_concurrency=_PARTS_IN_FLIGHT,
                )

    async def read(self, sha256: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """The bytes in order, at most 1 MiB at once."""
        key = _key(sha256)
        try:
            with _translated():
                found = int((await obstore.head_async(self._store, key))["size"])
            if found != size_bytes:
                raise BlobCorruptError(sha256, f"{found} bytes are stored instead of {size_bytes}")
            # Ranges, not one long response: a slow reader would run into the time limit of a request.
            for start in range(0, size_bytes, _READ_BYTES):
                end = min(start + _READ_BYTES, size_bytes)
                with _translated():
                    part = memoryview(await obstore.get_range_async(self._store, key, start=start, end=end))
                for offset in range(0, len(part), _CHUNK_BYTES):
                    yield bytes(part[offset : offset + _CHUNK_BYTES])
        except _ABSENT as error:
            raise BlobCorruptError(sha256, "the stored bytes are gone") from error

    async def free_bytes(self) -> int | None:
        """Room on the folder's disk; None for a remote store."""
        if self._folder is None:
            return None
        return (await asyncio.to_thread(shutil.disk_usage, self._folder)).free

    async def sweep(self, older_than_s: float) -> int:
        """Remove what killed processes left half written; returns how many files went.

        Args:
            older_than_s: younger files may belong to a running upload.
        """
        return 0 if self._folder is None else await asyncio.to_thread(_sweep, self._folder / _FOLDER, older_than_s)


def open_blob_store(
    url: str,
    *,
    endpoint: str = "",
    region: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    max_retries: int = 3,
) -> ObjectBlobStore:
    """Open `file:///folder` or `s3://bucket/prefix`.

    What is empty for S3 comes from the standard AWS_* variables or the machine's own role.

    Raises:
        StartupError: the folder cannot be made, or the URL or an option is bad.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
            (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
            return ObjectBlobStore(LocalStore(folder), folder)
        options: S3Config = {}
        if endpoint:
            options["endpoint"] = endpoint
        if region:
            options["region"] = region
        if access_key_id:
            options["access_key_id"] = access_key_id
            options["secret_access_key"] = secret_access_key
        prefix = parts.path.strip("/") or None
        # Plain HTTP is allowed to an endpoint that was written with http://, and to nothing else.
        client: ClientConfig = {"allow_http": endpoint.startswith("http://")}
        # A caller waits meanwhile: an early UNAVAILABLE serves it better than the default of 10 retries.
        retries: RetryConfig = {"max_retries": max_retries, "retry_timeout": timedelta(seconds=20)}
        return ObjectBlobStore(
            S3Store(parts.netloc, prefix=prefix, config=options, client_options=client, retry_config=retries)
        )
    except (OSError, BaseError) as error:
        raise StartupError(f"cannot open the blob store {url}: {error}") from error


class _Abandonable:
    """Passes an iterator on until it is told to fail instead."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._abandoned = asyncio.get_running_loop().create_future()

    def abandon(self) -> None:
        """Fail the next step, or the one that is being waited for."""
        self._abandoned.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        step = asyncio.ensure_future(self._step())
        await asyncio.wait([step, self._abandoned], return_when=asyncio.FIRST_COMPLETED)
        if self._abandoned.done():
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
            raise _AbandonedError
        chunk = step.result()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _step(self) -> bytes | None:
        return await anext(self._chunks, None)


class _AbandonedError(Exception):
    """The caller went away."""


def _key(sha256: str) -> str:
    return f"{_FOLDER}/{sha256}"


async def _write_file(path: Path, source: AsyncIterator[bytes]) -> None:
    """As an object store would, but flushed: obstore names what it writes to a folder while its bytes are in the cache.

    A power failure would then leave an empty file, also in the place of a blob that is written again.
    """
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            async for chunk in source:
                await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(settle, partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the store's errors into ours, except that something is not there."""
    try:
        yield
    except _ABSENT:
        raise
    except (BaseError, OSError) as error:
        if f"os error {errno.ENOSPC}" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
            raise StorageFullError("the disk of the blob store is full") from error
        raise StorageUnavailableError("the blob store cannot be used at the moment", retry_after_s=2.0) from error


def _sweep(folder: Path, older_than_s: float) -> int:
    removed = 0
    limit = time.time() - older_than_s
    for path in folder.iterdir():
        # An upload may end, and its partial file with it, at any moment.
        with suppress(FileNotFoundError):
            if _PARTIAL.fullmatch(path.name) and path.stat().st_mtime <= limit:
                path.unlink()
                removed += 1
    return removed
