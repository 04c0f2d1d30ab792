"""Where an import's images come from: folders and archives of this machine, uploads, and object stores."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore import Bytes
from obstore.store import ObjectStore, from_url

from enxerto.kernel.errors import (
    FailedPreconditionError,
    NotFoundError,
    PreconditionViolation,
    UnavailableError,
    Violation,
)
from enxerto.training.adapters.object_store import store_errors, upload_key
from enxerto.training.domain import Finding, PathSource, Source, UploadSource, UriSource
from enxerto.training.errors import LocationNotAllowedError, PathNotAllowedError, SourceRefusedError
from enxerto.training.ports import ImportRefusedError
from enxerto.vision.archives import ArchiveError, ArchiveLimits, Offender, Target, extract

if TYPE_CHECKING:
    # A type of the stub alone.
    from obstore import ObjectMeta

_CHUNK_BYTES = 2**20
_DOWNLOADS = 8
_MAX_VIOLATIONS = 1000
_STATUS = re.compile(r"status code: (\d{3})")

Stop = Callable[[], None]
"""Raises when the work is no longer wanted."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object of a location, and the path that it gets."""

    key: str
    path: Path


class ImportSources:
    """Brings a source into a folder of this machine. Blocking: call it in a thread.

    Args:
        uploads: where uploaded archives are.
        scratch: folder to download and unpack in.
        roots: folders that `path` sources may lie in.
        locations: `s3://bucket/prefix` and `gs://bucket/prefix` that `uri` sources may lie in.
        limits: of an archive, and of everything in a location together.
    """

    def __init__(
        self,
        uploads: ObjectStore,
        scratch: Path,
        roots: tuple[Path, ...],
        locations: tuple[str, ...],
        limits: ArchiveLimits,
    ) -> None:
        self._uploads = uploads
        self._scratch = scratch
        self._roots = roots
        self._locations = locations
        self._limits = limits

    def check(self, project: str, source: Source) -> None:
        """Whether the source may be read and is there; raises as `Importer.check`."""
        match source:
            case PathSource(path):
                allowed_path(path, self._roots)
            case UriSource(uri):
                check_location(uri, self._locations)
                self._look(uri)
            case UploadSource(sha256):
                key = upload_key(project, sha256)
                with store_errors(key):
                    try:
                        obstore.head(self._uploads, key)
                    except FileNotFoundError:
                        raise NotFoundError("Upload", f"projects/{project}/uploads/{sha256}") from None

    @contextmanager
    def folder(self, project: str, source: Source, stop: Stop) -> Iterator[Path]:
        """The source as a folder, for as long as the context lasts.

        Raises:
            ImportRefusedError: the archive or the location may not be unpacked.
        """
        if isinstance(source, PathSource):
            path = allowed_path(source.path, self._roots)
            if path.is_dir():
                yield path
                return
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="import-") as name:
            scratch = Path(name)
            match source:
                case PathSource():
                    yield self._unpacked(path, scratch, stop)
                case UploadSource(sha256):
                    archive = scratch / "archive"
                    key = upload_key(project, sha256)
                    _fetch(_content(self._uploads, key, store_errors(key)), archive, stop)
                    yield self._unpacked(archive, scratch, stop)
                case UriSource(uri):
                    check_location(uri, self._locations)
                    yield self._downloaded(uri, scratch, stop)

    def _unpacked(self, archive: Path, scratch: Path, stop: Stop) -> Path:
        folder = scratch / "unpacked"
        try:
            extract(archive, folder, self._limits, stop)
        except ArchiveError as error:
            raise _refused(error.offenders) from error
        return folder

    def _look(self, uri: str) -> None:
        store, key = _open(uri)
        if next(_listed(uri, store, key), None) is None:
            _size(uri, store, key)

    def _downloaded(self, uri: str, scratch: Path, stop: Stop) -> Path:
        store, key = _open(uri)
        folder = scratch / "downloaded"
        folder.mkdir()
        objects = self._planned(_listed(uri, store, key), key, folder, stop)
        if not objects:
            archive = scratch / "archive"
            size = _size(uri, store, key)
            if size > self._limits.total_bytes:
                limit = f"has {size} bytes, the limit is {self._limits.total_bytes}"
                raise _refused((Offender("", "TOO_LARGE", limit),))
            _fetch(_content(store, key, _uri_errors(uri)), archive, stop)
            return self._unpacked(archive, scratch, stop)

        def fetch(one: _Object) -> None:
            _fetch(_content(store, one.key, _uri_errors(uri)), one.path, stop)

        with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="import") as pool:
            for part in _parts(objects):
                # The first failure is raised; what has not begun by then is not waited for.
                for _ in pool.map(fetch, part):
                    stop()
        return folder

    def _planned(self, listed: "Iterator[ObjectMeta]", key: str, folder: Path, stop: Stop) -> list[_Object]:
        """Every object below a prefix with the path that it gets; sizes and names are checked before any is fetched."""
        target = Target(folder)
        planned: list[_Object] = []
        offenders: list[Offender] = []
        total = 0
        for one in listed:
            stop()
            path = target.place(str(one["path"])[len(key) :].lstrip("/"), is_folder=False)
            total += int(one["size"])
            if isinstance(path, Offender):
                offenders.append(path)
            elif len(planned) >= self._limits.entries:
                raise _refused((Offender("", "TOO_MANY_ENTRIES", f"more than {self._limits.entries} objects"),))
            elif total > self._limits.total_bytes:
                raise _refused((Offender("", "TOO_LARGE", f"more than {self._limits.total_bytes} bytes"),))
            else:
                planned.append(_Object(str(one["path"]), path))
        if offenders:
            raise _refused(tuple(offenders))
        for parent in {one.path.parent for one in planned}:
            parent.mkdir(parents=True, exist_ok=True)
        return planned


def allowed_path(path: str, roots: tuple[Path, ...]) -> Path:
    """The real path, when it lies below one of the roots and something is there.

    Raises:
        PathNotAllowedError: it lies elsewhere, links followed.
        FailedPreconditionError: nothing readable is there.
    """
    # Unlike `Path.resolve` this raises nothing, whatever the links are.
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise PathNotAllowedError(path, roots)
    if obstacle := _obstacle(real):
        raise FailedPreconditionError(f"{path}: {obstacle}", [PreconditionViolation("PATH", path, obstacle)])
    return real


def _obstacle(path: Path) -> str:
    """Why there is nothing to read; empty when there is."""
    try:
        if not path.is_dir() and not path.is_file():
            return "there is no such folder or archive on the training service's machine"
    except OSError as error:
        return f"the training service cannot look there: {error.strerror}"
    return "" if os.access(path, os.R_OK) else "the training service may not read it"


def check_location(uri: str, locations: tuple[str, ...]) -> None:
    """Whether the URI lies in one of the locations; raises LocationNotAllowedError."""
    plain = uri.rstrip("/")
    below = any(plain == one.rstrip("/") or plain.startswith(one.rstrip("/") + "/") for one in locations)
    if not below or any(part in (".", "..") for part in plain.split("/")):
        raise LocationNotAllowedError(uri, locations)


def refused_source(findings: tuple[Finding, ...]) -> SourceRefusedError:
    """The error of a source with errors; a client's message has room for the first thousand."""
    errors = [one for one in findings if one.is_error]
    return SourceRefusedError([Violation(one.path, f"{one.code}: {one.message}") for one in errors[:_MAX_VIOLATIONS]])


def _refused(offenders: tuple[Offender, ...]) -> ImportRefusedError:
    violations = [Violation(one.member or "archive", f"{one.code}: {one.description}") for one in offenders]
    findings = tuple(Finding(True, one.member or ".", one.code, one.description) for one in offenders)
    return ImportRefusedError(SourceRefusedError(violations[:_MAX_VIOLATIONS]), findings)


def _open(uri: str) -> tuple[ObjectStore, str]:
    """The bucket's store and the key in it; credentials and endpoints come from the usual variables."""
    parts = urlsplit(uri)
    return from_url(f"{parts.scheme}://{parts.netloc}"), parts.path.strip("/")


def _listed(uri: str, store: ObjectStore, key: str) -> "Iterator[ObjectMeta]":
    with _uri_errors(uri):
        for part in obstore.list(store, prefix=key or None):
            # Consoles make an empty object for a folder.
            yield from (one for one in part if not str(one["path"]).endswith("/") and str(one["path"]) != key)


def _size(uri: str, store: ObjectStore, key: str) -> int:
    with _uri_errors(uri):
        if not key:
            raise FileNotFoundError(uri)
        return int(obstore.head(store, key)["size"])


def _content(store: ObjectStore, key: str, errors: AbstractContextManager[None]) -> Iterator[Bytes]:
    with errors:
        yield from obstore.get(store, key).stream(min_chunk_size=_CHUNK_BYTES)


def _parts(objects: list[_Object]) -> Iterator[list[_Object]]:
    for start in range(0, len(objects), 1024):
        yield objects[start : start + 1024]


def _fetch(chunks: Iterator[Bytes], into: Path, stop: Stop) -> None:
    """Write what a store gives; its errors have their meaning by then, so that others are of our own disk."""
    with into.open("wb") as file:
        for chunk in chunks:
            stop()
            file.write(chunk)


@contextmanager
def _uri_errors(uri: str) -> Iterator[None]:
    """Give an object store's errors their meaning for whoever named the URI."""

    def refusal(description: str) -> FailedPreconditionError:
        return FailedPreconditionError(f"{uri}: {description}", [PreconditionViolation("LOCATION", uri, description)])

    try:
        yield
    except InterruptedError:
        # The caller has left: an OSError by Python's hierarchy only.
        raise
    except (obstore.exceptions.BaseError, OSError) as error:
        # A refused listing has no class of its own, its status stands in the message only.
        status = _STATUS.search(str(error))
        if isinstance(error, FileNotFoundError) or (status and status[1] == "404"):
            raise refusal("there is nothing at this location") from error
        refused = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)
        if isinstance(error, refused) or (status and status[1] in ("401", "403")):
            raise refusal("the training service's credentials may not read this location") from error
        raise UnavailableError(f"{uri} cannot be reached", retry_after_s=5.0) from error
