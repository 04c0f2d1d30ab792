"""Where members of an archive, or objects of a bucket, may be written."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from enxerto.vision.archives.limits import Offender

_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 2048


class Target:
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
            return Offender(name, "DUPLICATE", "occurs more than once, or as a file and as a folder")
        self._folders |= parents
        if is_folder:
            self._folders.add(path)
        else:
            self._files.add(path)
        return self._folder / path


def legible(text: str) -> str:
    """The text with whatever is not Unicode escaped, as bytes of a name are that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def safe_path(name: str) -> PurePosixPath | Offender:
    """A name from outside as a relative path that stays below its folder, or why it is none."""
    if name != legible(name):
        return Offender(legible(name), "BAD_NAME", "has a name that is not UTF-8")
    path = PurePosixPath(name)
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return Offender(name, "ABSOLUTE_PATH", "has an absolute path")
    if ".." in path.parts:
        return Offender(name, "PATH_TRAVERSAL", "leaves the archive through '..'")
    if not name or "\\" in name or any(ord(char) < 32 for char in name):
        return Offender(name, "BAD_NAME", "has an empty name, a backslash or a control character in its name")
    encoded = [part.encode() for part in path.parts]
    if any(len(part) > _MAX_NAME_BYTES for part in encoded) or sum(map(len, encoded)) > _MAX_PATH_BYTES:
        return Offender(name[:80], "BAD_NAME", "has too long a name")
    return path
