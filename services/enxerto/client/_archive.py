"""A folder as a tar stream: the same bytes each time, never in memory or on disk as a whole."""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Archive:
    """Bytes to upload: a folder as tar, or a tar or zip file as it is."""

    path: Path

    def chunks(self) -> Iterator[bytes]:
        """The bytes, at most 1 MiB at once; each call reads the files anew."""
        return _file_chunks(self.path) if self.path.is_file() else _regroup(_tar(self.path))

    def measure(self) -> tuple[str, int]:
        """The sha256 in hexadecimal and the size in bytes, which the upload announces before the bytes."""
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self.chunks():
            digest.update(chunk)
            size_bytes += len(chunk)
        return digest.hexdigest(), size_bytes


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _tar(folder: Path) -> Iterator[bytes]:
    for path, name in _members(folder, "", ()):
        info = tarfile.TarInfo(name)
        if path.is_dir():
            # An empty class folder is something that the import reports.
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield info.tobuf(tarfile.PAX_FORMAT)
            continue
        info.size = path.stat().st_size
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from _file_chunks(path)
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _members(folder: Path, prefix: str, inside: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Files and folders in a stable order. Links are followed, except back into a folder that is being read."""
    resolved = folder.resolve()
    if resolved in inside:
        return
    for path in sorted(folder.iterdir()):
        name = f"{prefix}{path.name}"
        if path.is_dir():
            yield path, name
            yield from _members(path, f"{name}/", (*inside, resolved))
        elif path.is_file():
            yield path, name


def _regroup(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks of 1 MiB: a message per header would cost more than the bytes."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)
