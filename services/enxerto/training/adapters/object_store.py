"""Content-addressed blobs and a job's files in an object store: a local folder, S3, GCS or Azure."""

import asyncio
import contextlib
import errno
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from enxerto.kernel.errors import DataLossError, UnavailableError
from enxerto.runtime.durable_files import publish
from enxerto.training.errors import DiskFullError

_CHUNK_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def open_store(url: str) -> ObjectStore:
    """The store behind `file:///…`, `s3://bucket/prefix` and so on; credentials come from the usual variables."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(unquote(parts.path), mkdir=True)
    return from_url(url)


def put(store: ObjectStore, key: str, content: bytes | Path, *, create: bool = False) -> None:
    """Store bytes or a file; a power failure after this has returned does not undo it. Blocking: call it in a thread.

    obstore leaves what it writes to a local folder to the system's cache, so that a file may be empty afterwards.

    Args:
        store: where to.
        key: under which name.
        content: the bytes, or a file with them.
        create: whether an object that is there already is an error instead of being replaced.

    Raises:
        obstore.exceptions.AlreadyExistsError: there is one already.
    """
    if not isinstance(store, LocalStore):
        obstore.put(
            store, key, content, mode="create" if create else "overwrite", use_multipart=False if create else None
        )
        return
    try:
        publish(_local_path(store, key), content, create=create)
    except FileExistsError as error:
        raise obstore.exceptions.AlreadyExistsError(f"{key} exists") from error


def copy(store: ObjectStore, source: str, target: str) -> None:
    """Copy an object inside a store, as lastingly as `put`. Blocking: call it in a thread."""
    if isinstance(store, LocalStore):
        publish(_local_path(store, target), _local_path(store, source))
    else:
        obstore.copy(store, source, target)


def _local_path(store: LocalStore, key: str) -> Path:
    return Path(store.prefix or "/") / key


@contextlib.contextmanager
def store_errors(key: str) -> Iterator[None]:
    """Give an object store's errors their meaning here."""
    try:
        yield
    except InterruptedError:
        # Work that nobody wants any more: an OSError by Python's hierarchy only.
        raise
    except FileNotFoundError as error:
        raise DataLossError(f"the object {key} is missing from the blob store") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        raise UnavailableError("the blob store cannot be reached", retry_after_s=5.0) from error


@contextlib.contextmanager
def disk_errors(*folders: Path) -> Iterator[None]:
    """Tell a full disk from all other errors; the fullest of the folders that are written to is named.

    Raises:
        DiskFullError: there is no room in it, or the quota is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        there = (folder for folder in folders if folder.is_dir())
        fullest = min(there, key=lambda folder: shutil.disk_usage(folder).free, default=folders[0])
        raise DiskFullError(fullest) from error


def _folder(store: ObjectStore) -> Path:
    """The folder that a store is, or else where its client may write."""
    return Path(store.prefix or "/") if isinstance(store, LocalStore) else Path(tempfile.gettempdir())


def blob_key(sha256: str) -> str:
    """Where a content-addressed blob lies."""
    return f"blobs/{sha256}"


def upload_key(project: str, sha256: str) -> str:
    """Where an uploaded archive lies."""
    return f"uploads/{project}/{sha256}"


def incoming_key(sha256: str) -> str:
    """Where weights lie that nobody has accepted yet: apart from blobs, which other things may refer to."""
    return f"incoming/{sha256}"


def events_prefix(uid: str) -> str:
    """Where the logs of a run's attempts lie."""
    return f"runs/{uid}/events"


def event_key(uid: str, attempt: int, seq: int) -> str:
    """Where one entry of a job's log lies."""
    return f"{events_prefix(uid)}/{attempt}/{seq:08d}.json"


def spec_key(uid: str) -> str:
    """Where a run's spec lies."""
    return f"runs/{uid}/spec.json"


def result_key(uid: str, attempt: int) -> str:
    """Where a job's result lies; it is written after all that it refers to."""
    return f"runs/{uid}/results/{attempt}.json"


def failure_key(uid: str, attempt: int) -> str:
    """Where a worker leaves the status of what went wrong, for the job to report when it has no result."""
    return f"runs/{uid}/failures/{attempt}.bin"


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StoredBlobs:
    """Immutable blobs by digest: sink and source of snapshots and artefacts. Blocking: call it in a thread.

    Args:
        store: where the blobs are.
        cache: folder for local copies; a store that is a local folder is read in place.
        key: where a blob lies, by its digest.
    """

    def __init__(self, store: ObjectStore, cache: Path, key: Callable[[str], str] = blob_key) -> None:
        self._store = store
        self._cache = cache
        self._key = key

    def put(self, content: bytes | Path) -> str:
        """Store bytes or a file once, and return the sha256."""
        digest = file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        key = self._key(digest)
        with store_errors(key), disk_errors(_folder(self._store)):
            try:
                obstore.head(self._store, key)
            except FileNotFoundError:
                put(self._store, key, content)
        return digest

    @contextlib.contextmanager
    def open(self, sha256: str) -> Iterator[Path]:
        """A local file with the blob; raises DataLossError when it is missing or damaged."""
        if isinstance(self._store, LocalStore):
            path = _local_path(self._store, self._key(sha256))
            if not path.is_file():
                raise DataLossError(f"blob {sha256} is missing")
            yield path
            return
        path = self._cache / sha256
        if not path.is_file():
            self._fetch(sha256, path)
        yield path

    async def stream(self, sha256: str, chunk_bytes: int) -> AsyncIterator[bytes]:
        """The bytes of a blob in order, at most `chunk_bytes` at once, without a local copy."""
        key = self._key(sha256)
        with store_errors(key):
            found = await obstore.get_async(self._store, key)
            async for buffer in found.stream(min_chunk_size=chunk_bytes):
                data = memoryview(buffer)
                for start in range(0, len(data), chunk_bytes):
                    yield bytes(data[start : start + chunk_bytes])

    def _fetch(self, sha256: str, path: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        # Workers of one machine may fetch the same blob at once: each writes its own file, the last rename stands.
        with tempfile.NamedTemporaryFile(dir=self._cache, suffix=".partial", delete=False) as whole:
            try:
                with store_errors(self._key(sha256)):
                    for chunk in obstore.get(self._store, self._key(sha256)).stream(min_chunk_size=_CHUNK_BYTES):
                        digest.update(chunk)
                        whole.write(chunk)
                if digest.hexdigest() != sha256:
                    raise DataLossError(f"blob {sha256} is damaged in the blob store")
            except BaseException:
                Path(whole.name).unlink()
                raise
        Path(whole.name).replace(path)


class ObjectUploadStore:
    """An `UploadStore` on an object store.

    Args:
        store: where whole archives go.
        scratch: folder where they are received.
    """

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch

    async def put(self, project: str, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes; they become visible all at once after `chunks` has ended."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        key = upload_key(project, sha256)
        with (
            disk_errors(self._scratch),
            tempfile.TemporaryDirectory(dir=self._scratch, prefix="upload-") as folder,
        ):
            path = Path(folder) / "archive"
            with path.open("wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            with store_errors(key), disk_errors(_folder(self._store)):
                await asyncio.to_thread(put, self._store, key, path)
