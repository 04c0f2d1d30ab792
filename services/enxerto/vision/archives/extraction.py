"""Unpack a tar or a zip without trusting it."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from enxerto.vision.archives.limits import DEFAULT_LIMITS, ArchiveError, ArchiveLimits, Offender, StopError
from enxerto.vision.archives.metering import CHUNK, Meter, MeteredMember, MeteredTar, MeteredZip, Readable
from enxerto.vision.archives.names import Target, legible

_TAR_BLOCK: Final = 512
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


def extract(
    archive: Path, into: Path, limits: ArchiveLimits = DEFAULT_LIMITS, stop: Callable[[], None] = lambda: None
) -> None:
    """Unpack a tar (plain, gzip, xz, bzip2) or zip, told apart by content, into the new folder `into`.

    Args:
        archive: the file.
        into: where to.
        limits: of what it unpacks to.
        stop: asked at every member and piece of one; raises when the work is no longer wanted.

    Raises:
        ArchiveError: with every member that is a link, a device, encrypted, a duplicate, or has a path that leaves the
            folder; or the first limit that was crossed. `into` does not exist then.
        FileExistsError: `into` exists.
        OSError: the disk cannot be read or written; `into` does not exist then.
    """
    into.mkdir(parents=True)
    offenders: list[Offender] = []
    try:
        _extract(archive, Target(into), Meter(archive.stat().st_size, limits, stop), offenders)
        if offenders:
            raise ArchiveError(tuple(offenders))
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _extract(archive: Path, target: Target, meter: Meter, offenders: list[Offender]) -> None:
    try:
        with archive.open("rb") as file:
            head = file.read(_TAR_BLOCK)
            file.seek(0)
            if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                _extract_zip(MeteredZip(file, meter.limits), target, meter, offenders)
                return
            with _decompressed(file, head) as stream:
                _extract_tar(stream, target, meter, offenders)
    except StopError as stop:
        offenders.append(stop.offender)
    except _UNREADABLE as error:
        if not _is_damage(error):
            raise
        offenders.append(Offender("", "CORRUPT", f"the archive is damaged: {error}"))


def _is_damage(error: Exception) -> bool:
    """Whether an error is of the archive's bytes, and not of the disk or of whoever stops the work."""
    if isinstance(error, InterruptedError):
        return False
    # Decompressors give no number; a bad offset makes the system refuse to seek.
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


@contextlib.contextmanager
def _decompressed(file: BinaryIO, head: bytes) -> Iterator[Readable]:
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
        raise StopError(Offender("", "UNSUPPORTED", "is neither a tar (plain, gzip, xz, bzip2) nor a zip"))


def _is_tar(head: bytes) -> bool:
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _extract_tar(stream: Readable, target: Target, meter: Meter, offenders: list[Offender]) -> None:
    metered = MeteredTar(stream, meter)
    with tarfile.open(fileobj=metered, mode="r:") as tar:
        while (member := tar.next()) is not None:
            name = legible(member.name)
            metered.member = name
            meter.add_entry(name)
            # tarfile keeps every header that it has read; a long archive would fill memory.
            tar.members = []  # type: ignore[attr-defined]
            if member.issym() or member.islnk():
                offenders.append(Offender(name, "LINK", "is a link"))
                continue
            if not (member.isdir() or member.isreg()) or member.issparse():
                offenders.append(Offender(name, "SPECIAL_FILE", "is neither a plain file nor a folder"))
                continue
            path = target.place(member.name, member.isdir())
            if isinstance(path, Offender):
                offenders.append(path)
                continue
            # Once something is wrong, the rest is only looked at.
            if not offenders:
                _write(path, None if member.isdir() else tar.extractfile(member), member.size)


def _extract_zip(file: MeteredZip, target: Target, meter: Meter, offenders: list[Offender]) -> None:
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
                    _write(path, MeteredMember(body, meter, name), None)
            except _UNREADABLE as error:
                if not _is_damage(error):
                    raise
                offenders.append(Offender(name, "CORRUPT", f"is damaged: {error}"))


def _write(path: Path, body: Readable | None, size: int | None) -> None:
    if body is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while chunk := body.read(CHUNK):
            file.write(chunk)
            written += len(chunk)
    if size is not None and written != size:
        raise EOFError(f"{path.name} ends too early")
