"""The images of samples in a folder or an object store, through obstore."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from enxerto.inference.errors import StorageUnavailableError
from enxerto.kernel.names import SampleName
from enxerto.runtime.durable_files import publish
from enxerto.runtime.errors import StartupError

# obstore has a class of its own for this and raises the builtin one.
_ABSENT = (NotFoundError, FileNotFoundError)


class ObjectSampleFiles:
    """`SampleFiles` as objects under the samples' names."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, name: SampleName, content: bytes) -> None:
        """Keep an image."""
        with _translated():
            if isinstance(self._store, LocalStore):
                # obstore leaves what it writes to a folder to the system's cache.
                await asyncio.to_thread(publish, Path(self._store.prefix or "/") / str(name), content)
            else:
                await obstore.put_async(self._store, str(name), content)

    async def get(self, name: SampleName) -> bytes | None:
        """Read an image."""
        with _translated():
            try:
                return bytes(await (await obstore.get_async(self._store, str(name))).bytes_async())
            except _ABSENT:
                return None

    async def delete(self, name: SampleName) -> None:
        """Remove an image."""
        with _translated():
            try:
                await obstore.delete_async(self._store, str(name))
            except _ABSENT:
                return

    async def names(self) -> Sequence[SampleName]:
        """Every image."""
        with _translated():
            found: list[SampleName] = []
            async for part in obstore.list(self._store, "projects"):
                found += [name for one in part if (name := SampleName.try_parse(one["path"])) is not None]
            return found


def open_sample_files(url: str, folder: Path) -> ObjectSampleFiles:
    """The store behind `file:///…`, `s3://bucket/prefix` and so on; a folder when the URL is empty.

    Raises:
        StartupError: it cannot be opened.
    """
    parts = urlsplit(url)
    try:
        if not url or parts.scheme == "file":
            return ObjectSampleFiles(LocalStore(unquote(parts.path) if url else folder, mkdir=True))
        return ObjectSampleFiles(from_url(url))
    except (BaseError, OSError, ValueError) as error:
        raise StartupError(f"cannot open ENXERTO_INFERENCE_SAMPLES_URL: {error}") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageUnavailableError("the store of samples cannot be reached", retry_after_s=5.0) from error
