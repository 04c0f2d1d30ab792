"""POSIX shared memory that clients of the same machine registered for their tensors.

Regions are read and written through their file descriptors, not through a mapping: the client may cut the object short
at any moment, which ends a process that touches a mapping of it (SIGBUS), while here it is an error of that request.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from enxerto.inference.errors import RegionExistsError, RegionNotFoundError, TooManyRegionsError
from enxerto.kernel.errors import Violations

MAX_REGIONS = 256

_FOLDER = Path("/dev/shm")  # noqa: S108 - where the system keeps shared memory
_MAX_KEY_BYTES = 255
_MAX_BYTES = 2**63 - 1


class RegionError(ValueError):
    """A tensor does not lie in its region."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a shared-memory object, open for reading and writing."""

    name: str
    key: str
    offset_bytes: int
    size_bytes: int
    descriptor: int

    def check(self, size_bytes: int, offset_bytes: int) -> None:
        """Check that so many bytes from there lie within the region.

        Raises:
            RegionError: they do not.
        """
        if offset_bytes + size_bytes > self.size_bytes:
            text = f"{size_bytes} bytes from {offset_bytes} reach beyond the {self.size_bytes} bytes of {self.name!r}"
            raise RegionError(text)

    def read(self, size_bytes: int, offset_bytes: int) -> bytes:
        """A copy, which the client cannot change any more.

        Raises:
            RegionError: the bytes do not lie within the region, or the client cut the object short.
        """
        self.check(size_bytes, offset_bytes)
        content = os.pread(self.descriptor, size_bytes, self.offset_bytes + offset_bytes)
        if len(content) != size_bytes:
            raise RegionError(f"the shared-memory object of {self.name!r} is shorter than when it was registered")
        return content

    def write(self, content: bytes, offset_bytes: int) -> None:
        """Write all of it.

        Raises:
            RegionError: it does not fit, or the client cut the object short.
        """
        self.check(len(content), offset_bytes)
        begin = self.offset_bytes + offset_bytes
        # Writing beyond the end would make the object longer again.
        if os.fstat(self.descriptor).st_size < begin + len(content):
            raise RegionError(f"the shared-memory object of {self.name!r} is shorter than when it was registered")
        written = 0
        while written < len(content):
            written += os.pwrite(self.descriptor, memoryview(content)[written:], begin + written)


class Regions:
    """The regions by name. Belongs to one event loop."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset_bytes: int, size_bytes: int) -> None:
        """Open a shared-memory object.

        Raises:
            InvalidArgumentError: names every field that is wrong; the object is missing, too small or not one.
            RegionExistsError: the name is taken.
            TooManyRegionsError: there are `MAX_REGIONS` already.
        """
        violations = Violations()
        if not name:
            violations.add("name", "must not be empty")
        if not 1 <= size_bytes <= _MAX_BYTES:
            violations.add("byte_size", f"must be at least 1, is {size_bytes}")
        _check_key(key, violations)
        violations.raise_if_any()
        if name in self._regions:
            raise RegionExistsError(name)
        if len(self._regions) >= MAX_REGIONS:
            raise TooManyRegionsError(MAX_REGIONS)
        descriptor = _open(self._folder / key.removeprefix("/"), key, violations)
        try:
            _check_object(os.fstat(descriptor), key, offset_bytes, size_bytes, violations)
            violations.raise_if_any()
        except BaseException:
            os.close(descriptor)
            raise
        self._regions[name] = Region(name, key, offset_bytes, size_bytes, descriptor)

    def get(self, name: str) -> Region | None:
        """The region of that name, if there is one."""
        return self._regions.get(name)

    def status(self, name: str = "") -> Mapping[str, Region]:
        """All regions, or one.

        Raises:
            RegionNotFoundError: it is not there.
        """
        if not name:
            return dict(self._regions)
        if name not in self._regions:
            raise RegionNotFoundError(name)
        return {name: self._regions[name]}

    def unregister(self, name: str = "") -> None:
        """Close a region, or all of them; one that is not there is no error."""
        for each in [name] if name else list(self._regions):
            region = self._regions.pop(each, None)
            if region is not None:
                os.close(region.descriptor)


def is_local(peer: str) -> bool:
    """Whether a gRPC peer is a process of this machine: it came by a loopback address or a Unix socket."""
    kind, _, address = unquote(peer).partition(":")
    if kind == "unix":
        return True
    host = address.rpartition(":")[0].strip("[]")
    return (kind == "ipv4" and host.startswith("127.")) or (kind == "ipv6" and host in ("::1", "::ffff:127.0.0.1"))


def _check_key(key: str, violations: Violations) -> None:
    plain = key.removeprefix("/")
    if not plain or plain in (".", "..") or "/" in plain or "\0" in plain or len(plain.encode()) > _MAX_KEY_BYTES:
        rule = "must be one name, with or without a slash before it, of at most 255 bytes"
        violations.add("key", f"{rule}, is {key[:100]!r}")


def _open(path: Path, key: str, violations: Violations) -> int:
    try:
        # A link would lead out of shared memory, and a pipe would block.
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        reasons = {errno.ENOENT: "there is no shared-memory object", errno.ELOOP: "a link is no shared-memory object"}
        reason = reasons.get(error.errno or 0, "the server cannot read and write the shared-memory object")
        violations.add("key", f"{reason} {key!r}")
    violations.raise_if_any()
    raise AssertionError("unreachable")


def _check_object(found: os.stat_result, key: str, offset_bytes: int, size_bytes: int, violations: Violations) -> None:
    if not stat.S_ISREG(found.st_mode):
        violations.add("key", f"{key!r} is no shared-memory object")
    elif offset_bytes > found.st_size:
        violations.add("offset", f"{offset_bytes} lies beyond the {found.st_size} bytes of {key!r}")
    elif offset_bytes + size_bytes > found.st_size:
        text = f"{size_bytes} bytes from {offset_bytes} reach beyond the {found.st_size} bytes of {key!r}"
        violations.add("byte_size", text)
