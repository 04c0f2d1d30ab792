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
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, 2**20)
            else:
                file.write(content)
        settle(partial, path, create=create)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """A name beside `path` for its bytes while they are written.

    Object stores of local folders hide names of this form, which their own half-written files have.
    """
    return path.with_name(f"{path.name}#{secrets.randbits(63)}")


def settle(partial: Path, path: Path, *, create: bool = False) -> None:
    """Give a file that is written to its end its name: its bytes are on the disk before, and the name is afterwards.

    Args:
        partial: the file, in the same folder.
        path: its name.
        create: whether a file that is there already is an error instead of being replaced.

    Raises:
        FileExistsError: there is one already.
        OSError: it cannot be done.
    """
    flush(partial)
    if create:
        path.hardlink_to(partial)
        partial.unlink()
    else:
        partial.replace(path)
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
