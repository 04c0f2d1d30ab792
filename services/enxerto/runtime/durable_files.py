"""Files that survive a power failure once they are there: a store that is a local folder promises what S3 does."""

import os
import secrets
import shutil
from pathlib import Path


def publish(path: Path, content: bytes | Path, *, create: bool = False) -> None:
    """Write a file that is seen as a whole or not at all, also after a power failure.

    The bytes are on the disk before they have their name, and the name is when this returns.

    Args:
        path: where it goes; folders are made.
        content: the bytes, or a file with them.
        create: whether a file that is there already is an error instead of being replaced.

    Raises:
        FileExistsError: there is one already.
        OSError: it cannot be written.
    """
    if create and path.exists():
        # Known before anything is written; two at once are told apart by the name itself.
        raise FileExistsError(path)
    _make(path.parent)
    # A name of this form is hidden by object stores of local folders, whose own half-written files have it.
    partial = path.with_name(f"{path.name}#{secrets.randbits(63)}")
    try:
        with partial.open("xb") as file:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, 2**20)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if create:
            path.hardlink_to(partial)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)
