"""Unpack an uploaded archive without trusting it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol

_CHUNK: Final = 1024 * 1024
_MAX_TAR_HEADER_BYTES: Final = 4 * 1024 * 1024
_TAR_BLOCK: Final = 512
_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 2048
_UNREADABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may unpack to; counted while it streams, its headers are not believed.

    Attributes:
        total_bytes: uncompressed.
        entries: files and folders.
        ratio: uncompressed / compressed, looked at above `ratio_floor_bytes`: small flat pictures compress well.
        ratio_floor_bytes: uncompressed size below which the ratio does not matter.
    """

    total_bytes: int = 50 * 1024**3
    entries: int = 1_000_000
    ratio: float = 200.0
    ratio_floor_bytes: int = 64 * 1024**2


DEFAULT_LIMITS: Final = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Offender:
    """One member that may not be unpacked.

    Attributes:
        member: its name in the archive; empty when it is the archive as a whole.
        code: stable: LINK, SPECIAL_FILE, ABSOLUTE_PATH, PATH_TRAVERSAL, BAD_NAME, DUPLICATE, ENCRYPTED, TOO_LARGE,
            TOO_MANY_ENTRIES, CORRUPT, UNSUPPORTED.
        description: for people.
    """

    member: str
    code: str
    description: str


class ArchiveError(ValueError):
    """The archive was refused and nothing of it was kept; `offenders` has every reason found."""

    def __init__(self, offenders: tuple[Offender, ...]) -> None:
        first = offenders[0]
        more = f" (and {len(offenders) - 1} more)" if len(offenders) > 1 else ""
        super().__init__(f"{first.member or 'archive'}: {first.description}{more}")
        self.offenders = offenders

    def __reduce__(self) -> tuple[type[ArchiveError], tuple[tuple[Offender, ...]]]:
        return type(self), (self.offenders,)


class _StopError(Exception):
    """No further member is worth reading."""

    def __init__(self, offender: Offender) -> None:
        super().__init__(offender.description)
        self.offender = offender


class _Meter:
    """Counts what comes out of the decompressor."""

    def __init__(self, archive_bytes: int, limits: ArchiveLimits) -> None:
        self._archive_bytes = max(archive_bytes, 1)
        self._limits = limits
        self._bytes = 0
        self._entries = 0

    def add_bytes(self, count: int, member: str) -> None:
        self._bytes += count
        if self._bytes > self._limits.total_bytes:
            limit = f"more than {self._limits.total_bytes} bytes uncompressed"
            raise _StopError(Offender(member, "TOO_LARGE", limit))
        ratio = self._bytes / self._archive_bytes
        if self._bytes > self._limits.ratio_floor_bytes and ratio > self._limits.ratio:
            limit = f"unpacks to more than {self._limits.ratio:g} times its size"
            raise _StopError(Offender(member, "TOO_LARGE", limit))

    def add_entry(self, member: str) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise _StopError(Offender(member, "TOO_MANY_ENTRIES", f"more than {self._limits.entries} entries"))


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Metered(io.RawIOBase):
    """A forward-only view of a decompressed tar, every byte of it counted, the skipped ones too."""

    def __init__(self, stream: _Readable, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._position = 0
        self.member = ""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0 or size > _MAX_TAR_HEADER_BYTES:
            # Bodies are read in small pieces, so a large read is a name or header that claims to be huge.
            raise _StopError(Offender(self.member, "TOO_LARGE", "has an oversized header"))
        data = self._stream.read(size)
        self._position += len(data)
        self._meter.add_bytes(len(data), self.member)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise tarfile.ReadError("the archive refers backwards")
        while self._position < offset:
            if not self.read(min(_CHUNK, offset - self._position)):
                break
        return self._position


class _Target:
    """The folder that members are written into, and the names it already holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = {PurePosixPath(".")}

    def place(self, name: str, is_folder: bool) -> Path | Offender:
        """Where the member goes, or why it may not."""
        path = safe_path(name)
        if isinstance(path, Offender):
            return path
        parents = set(path.parents)
        taken = path in self._files or (not is_folder and path in self._folders)
        if taken or parents & self._files:
            return Offender(name, "DUPLICATE", "occurs more than once")
        self._folders |= parents
        if is_folder:
            self._folders.add(path)
        else:
            self._files.add(path)
        return self._folder / path


def safe_path(name: str) -> PurePosixPath | Offender:
    """A name from outside as a relative path that stays below its folder, or why it is none."""
    path = PurePosixPath(name)
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return Offender(name, "ABSOLUTE_PATH", "has an absolute path")
    if ".." in path.parts:
        return Offender(name, "PATH_TRAVERSAL", "leaves the archive through '..'")
    if not name or "\\" in name or any(ord(char) < 32 for char in name):
        return Offender(name, "BAD_NAME", "has an empty name, a backslash or a control character in its name")
    encoded = [part.encode("utf-8", "surrogateescape") for part in path.parts]
    if any(len(part) > _MAX_NAME_BYTES for part in encoded) or sum(map(len, encoded)) > _MAX_PATH_BYTES:
        return Offender(name[:80], "BAD_NAME", "has too long a name")
    return path


def extract(archive: Path, into: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Unpack a tar (plain, gzip, xz, bzip2) or zip, told apart by content, into the new folder `into`.

    Raises:
        ArchiveError: with every member that is a link, a device, encrypted, a duplicate, or has a path that leaves the
            folder; or the first limit that was crossed. `into` does not exist then.
        FileExistsError: `into` exists.
    """
    into.mkdir(parents=True)
    offenders: list[Offender] = []
    try:
        _extract(archive, _Target(into), _Meter(archive.stat().st_size, limits), offenders)
        if offenders:
            raise ArchiveError(tuple(offenders))
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _extract(archive: Path, target: _Target, meter: _Meter, offenders: list[Offender]) -> None:
    try:
        with archive.open("rb") as file:
            head = file.read(_TAR_BLOCK)
            file.seek(0)
            if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                _extract_zip(file, target, meter, offenders)
                return
            with _decompressed(file, head) as stream:
                _extract_tar(stream, target, meter, offenders)
    except _StopError as stop:
        offenders.append(stop.offender)
    except _UNREADABLE as error:
        offenders.append(Offender("", "CORRUPT", f"the archive is damaged: {error}"))


@contextlib.contextmanager
def _decompressed(file: BinaryIO, head: bytes) -> Iterator[_Readable]:
    if head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as gzip_file:
            yield gzip_file
    elif head[:6] == b"\xfd7zXZ\x00":
        with lzma.LZMAFile(file) as lzma_file:
            yield lzma_file
    elif head[:3] == b"BZh":
        with bz2.BZ2File(file) as bz2_file:
            yield bz2_file
    elif _is_tar(head):
        yield file
    else:
        raise _StopError(Offender("", "UNSUPPORTED", "is neither a tar (plain, gzip, xz, bzip2) nor a zip"))


def _is_tar(head: bytes) -> bool:
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _extract_tar(stream: _Readable, target: _Target, meter: _Meter, offenders: list[Offender]) -> None:
    metered = _Metered(stream, meter)
    with tarfile.open(fileobj=metered, mode="r:") as tar:
        while (member := tar.next()) is not None:
            metered.member = member.name
            meter.add_entry(member.name)
            # tarfile keeps every header that it has read; a long archive would fill memory.
            tar.members = []  # type: ignore[attr-defined]
            if member.issym() or member.islnk():
                offenders.append(Offender(member.name, "LINK", "is a link"))
                continue
            if not (member.isdir() or member.isreg()) or member.issparse():
                offenders.append(Offender(member.name, "SPECIAL_FILE", "is neither a plain file nor a folder"))
                continue
            path = target.place(member.name, member.isdir())
            if isinstance(path, Offender):
                offenders.append(path)
                continue
            # Once something is wrong, the rest is only looked at.
            if not offenders:
                _write(path, None if member.isdir() else tar.extractfile(member), member.size)


def _extract_zip(file: BinaryIO, target: _Target, meter: _Meter, offenders: list[Offender]) -> None:
    with zipfile.ZipFile(file) as bundle:
        for member in bundle.infolist():
            name = member.filename
            meter.add_entry(name)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind == stat.S_IFLNK:
                offenders.append(Offender(name, "LINK", "is a link"))
                continue
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                offenders.append(Offender(name, "SPECIAL_FILE", "is neither a plain file nor a folder"))
                continue
            if member.flag_bits & 0x1:
                offenders.append(Offender(name, "ENCRYPTED", "is encrypted"))
                continue
            path = target.place(name, member.is_dir())
            if isinstance(path, Offender):
                offenders.append(path)
                continue
            if offenders:
                continue
            if member.is_dir():
                _write(path, None, 0)
                continue
            try:
                with bundle.open(member) as body:
                    _write(path, _Counting(body, meter, name), None)
            except _UNREADABLE as error:
                offenders.append(Offender(name, "CORRUPT", f"is damaged: {error}"))


class _Counting:
    """A zip member's body, counted."""

    def __init__(self, body: _Readable, meter: _Meter, member: str) -> None:
        self._body = body
        self._meter = meter
        self._member = member

    def read(self, size: int = -1, /) -> bytes:
        data = self._body.read(size)
        self._meter.add_bytes(len(data), self._member)
        return data


def _write(path: Path, body: _Readable | None, size: int | None) -> None:
    if body is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while chunk := body.read(_CHUNK):
            file.write(chunk)
            written += len(chunk)
    if size is not None and written != size:
        raise EOFError(f"{path.name} ends too early")
