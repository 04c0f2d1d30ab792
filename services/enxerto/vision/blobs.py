"""Immutable bytes by their sha256: where snapshots are put and read."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from enxerto.kernel.errors import DataLossError

_CHUNK: Final = 1024 * 1024


class BlobSink(Protocol):
    """Where immutable bytes are put; putting the same bytes twice stores them once."""

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a file's content, and return the sha256 in hexadecimal."""
        ...


class BlobSource(Protocol):
    """Where immutable bytes are read."""

    def open(self, sha256: str) -> AbstractContextManager[Path]:
        """A local file with the blob, there for as long as the context lasts; missing: `DataLossError`."""
        ...


class FolderBlobs:
    """Blobs in a local folder, both sink and source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a file's content, and return the sha256 in hexadecimal."""
        digest = _file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        target = self.folder / digest
        if not target.exists():
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as whole:
                if isinstance(content, Path):
                    with content.open("rb") as file:
                        shutil.copyfileobj(file, whole, _CHUNK)
                else:
                    whole.write(content)
            Path(whole.name).replace(target)
        return digest

    def open(self, sha256: str) -> AbstractContextManager[Path]:
        """A local file with the blob; missing: `DataLossError`."""
        return _Present(self.folder / sha256)


class _Present:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        if not self._path.is_file():
            raise DataLossError(f"blob {self._path.name} is missing")
        return self._path

    def __exit__(self, *_: object) -> None:
        return None


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
