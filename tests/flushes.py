"""What is flushed to the disk, and which files have their names by then: the fixture is in tests/conftest.py."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Flush:
    """One call of fsync."""

    target: Path
    """The file or folder."""
    names: Set[str]
    """What there was in the folder, or in the file's folder."""


def recording(flush: Callable[[int], None], seen: list[Flush]) -> Callable[[int], None]:
    """An fsync that writes down what it does."""

    def fsync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        folder = target if target.is_dir() else target.parent
        seen.append(Flush(target, {one.name for one in folder.iterdir()}))
        flush(descriptor)

    return fsync
