"""Counts what comes out of a decompressor; headers are not believed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

from enxerto.vision.archives.limits import ArchiveLimits, Offender, StopError

CHUNK: Final = 1024 * 1024
_MAX_TAR_HEADER_BYTES: Final = 4 * 1024 * 1024
_ZIP_ENTRY: Final = b"PK\x01\x02"
_ZIP_ENTRY_BYTES: Final = 256
"""That an entry of a zip's directory takes, with a long path."""


class Meter:
    """Counts what comes out of the decompressor, and asks each time whether it is still wanted.

    Args:
        archive_bytes: size of the archive.
        limits: of what comes out.
        stop: raises when the work is no longer wanted.
    """

    def __init__(self, archive_bytes: int, limits: ArchiveLimits, stop: Callable[[], None]) -> None:
        self._archive_bytes = max(archive_bytes, 1)
        self.limits = limits
        self._stop = stop
        self._bytes = 0
        self._entries = 0

    def add_bytes(self, count: int, member: str) -> None:
        """Count bytes; raises StopError over a limit."""
        self._stop()
        self._bytes += count
        if self._bytes > self.limits.total_bytes:
            limit = f"more than {self.limits.total_bytes} bytes uncompressed"
            raise StopError(Offender(member, "TOO_LARGE", limit))
        ratio = self._bytes / self._archive_bytes
        if self._bytes > self.limits.ratio_floor_bytes and ratio > self.limits.ratio:
            limit = f"unpacks to more than {self.limits.ratio:g} times its size"
            raise StopError(Offender(member, "TOO_LARGE", limit))

    def add_entry(self, member: str) -> None:
        """Count a member; raises StopError over the limit."""
        self._stop()
        self._entries += 1
        if self._entries > self.limits.entries:
            raise StopError(Offender(member, "TOO_MANY_ENTRIES", f"more than {self.limits.entries} entries"))


class Readable(Protocol):
    """Bytes that come one after the other."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many; none at the end."""
        ...


class MeteredTar(io.RawIOBase):
    """A forward-only view of a decompressed tar, every byte of it counted, the skipped ones too."""

    def __init__(self, stream: Readable, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._position = 0
        self.member = ""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; raises StopError over a limit."""
        if size < 0 or size > _MAX_TAR_HEADER_BYTES:
            # Bodies are read in small pieces, so a large read is a name or header that claims to be huge.
            raise StopError(Offender(self.member, "TOO_LARGE", "has an oversized header"))
        data = self._stream.read(size)
        self._position += len(data)
        self._meter.add_bytes(len(data), self.member)
        return data

    def tell(self) -> int:
        """How far it is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Forward only, reading what is skipped."""
        if whence != io.SEEK_SET or offset < self._position:
            raise tarfile.ReadError("the archive refers backwards")
        while self._position < offset:
            if not self.read(min(CHUNK, offset - self._position)):
                break
        return self._position


class MeteredZip(io.RawIOBase):
    """A zip's file, whose directory `zipfile` reads at once and keeps in memory before it tells of any entry."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._entries = limits.entries
        # Bodies are read in small pieces, so a larger read is a directory.
        self._most_bytes = max(CHUNK, limits.entries * _ZIP_ENTRY_BYTES)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; raises StopError for a directory of too many entries."""
        if size > self._most_bytes:
            limit = f"has a directory of {size} bytes, more than {self._entries} entries need"
            raise StopError(Offender("", "TOO_MANY_ENTRIES", limit))
        data = self._file.read(size)
        # Counted, because what the archive says of their number is not what is read.
        if data.startswith(_ZIP_ENTRY) and data.count(_ZIP_ENTRY) > self._entries:
            raise StopError(Offender("", "TOO_MANY_ENTRIES", f"more than {self._entries} entries"))
        return data

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next bytes are."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Anywhere."""
        return self._file.seek(offset, whence)


class MeteredMember:
    """A zip member's body, counted."""

    def __init__(self, body: Readable, meter: Meter, member: str) -> None:
        self._body = body
        self._meter = meter
        self._member = member

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; raises StopError over a limit."""
        data = self._body.read(size)
        self._meter.add_bytes(len(data), self._member)
        return data
