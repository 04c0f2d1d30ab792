"""Tensors in memory that the front writes and replicas on the same machine read, so that pixels need not travel.

A region is an anonymous file, found at `/proc/{pid}/fd/{fd}`. Its memory is given back when its owner closes it,
whoever has mapped it, and else ends with the processes that use it, however they end.
A replica in another container or on another machine cannot open it, or finds another file there; a nonce in the region
and in the call tells. Linux only.
"""

import fcntl
import mmap
import os
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enxerto.inference.domain import Bytes

IS_AVAILABLE = sys.platform == "linux"
"""Whether this system has anonymous files with seals, and names of sockets that are no files."""

_HEADER_BYTES = 4096
_NONCE_BYTES = 32
_LEAST_BYTES = 2**20
_KEPT_REGIONS = 32


class RegionError(Exception):
    """A region is not there for this process, or is not what the call says."""


class Region:
    """Memory of this process that others may read."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nonce = secrets.token_bytes(_NONCE_BYTES)
        self.fd = os.memfd_create("enxerto-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = _HEADER_BYTES + capacity
        os.ftruncate(self.fd, size)
        # Reading beyond the end of a file that shrank would kill the reader.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, size)
        self._memory[:_NONCE_BYTES] = self.nonce

    def write(self, parts: Sequence[Bytes]) -> None:
        """Put the parts one behind the other."""
        start = _HEADER_BYTES
        for part in parts:
            self._memory[start : start + len(part)] = part
            start += len(part)

    def close(self) -> None:
        """Give the memory back; who has mapped it reads zeros."""
        self._memory.madvise(mmap.MADV_REMOVE)
        self._memory.close()
        os.close(self.fd)


class RegionPool:
    """Regions that are used again, since fresh memory costs more than copying into it. Belongs to one thread."""

    def __init__(self, limit_bytes: int) -> None:
        """Hold at most so many bytes, in use and free."""
        self._limit = limit_bytes
        self._held = 0
        self._free: list[Region] = []

    def take(self, size_bytes: int) -> Region | None:
        """A region of at least that size, to be given back after the call; None when the limit leaves none."""
        capacity = max(_LEAST_BYTES, 1 << (size_bytes - 1).bit_length())
        for index in range(len(self._free) - 1, -1, -1):
            if self._free[index].capacity == capacity:
                return self._free.pop(index)
        while self._free and self._held + capacity > self._limit:
            self._close(self._free.pop(0))
        if self._held + capacity > self._limit:
            return None
        region = Region(capacity)
        self._held += capacity
        return region

    def give_back(self, region: Region) -> None:
        """Let another call have it."""
        self._free.append(region)

    def _close(self, region: Region) -> None:
        self._held -= region.capacity
        region.close()

    def close(self) -> None:
        """Give everything back that is not in use."""
        while self._free:
            self._close(self._free.pop())


@dataclass(frozen=True, slots=True)
class _View:
    """A region of another process."""

    memory: mmap.mmap
    path: Path
    file: tuple[int, int]
    """Device and number of what was there when it was mapped."""

    @property
    def gone(self) -> bool:
        """Whether its owner has closed it, or ended."""
        try:
            found = self.path.stat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self.file


class RegionReader:
    """Maps the regions of other processes, and keeps the latest of those that are there. Any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mapped: OrderedDict[bytes, _View] = OrderedDict()

    def read(self, pid: int, fd: int, nonce: bytes, size_bytes: int) -> memoryview:
        """The first bytes of a region; they are the writer's to change once the call has ended.

        Raises:
            RegionError: it cannot be opened from here, is another one, or is smaller.
        """
        with self._lock:
            memory = self._map(pid, fd, nonce)
        if size_bytes > len(memory) - _HEADER_BYTES:
            raise RegionError(f"the region has {len(memory) - _HEADER_BYTES} bytes, not {size_bytes}")
        return memoryview(memory)[_HEADER_BYTES : _HEADER_BYTES + size_bytes]

    def _map(self, pid: int, fd: int, nonce: bytes) -> mmap.mmap:
        if nonce not in self._mapped:
            # What an owner left that was killed would stay for as long as somebody has it mapped.
            for gone in [each for each, view in self._mapped.items() if view.gone]:
                del self._mapped[gone]
            self._mapped[nonce] = _map(pid, fd, nonce)
            if len(self._mapped) > _KEPT_REGIONS:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(nonce)
        return self._mapped[nonce].memory


def _map(pid: int, fd: int, nonce: bytes) -> _View:
    path = Path(f"/proc/{pid:d}/fd/{fd:d}")
    try:
        with path.open("rb", buffering=0) as file:
            if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise RegionError("the file may shrink")
            memory, found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise RegionError(f"the region cannot be opened: {error}") from error
    if len(nonce) != _NONCE_BYTES or not secrets.compare_digest(memory[:_NONCE_BYTES], nonce):
        raise RegionError("another region is there")
    return _View(memory, path, (found.st_dev, found.st_ino))
