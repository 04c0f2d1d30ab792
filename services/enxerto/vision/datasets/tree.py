"""The files of a data set: found once, never left."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from enxerto.vision.archives import legible
from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.images import EXTENSIONS
from enxerto.vision.specs import Split

IMAGE_EXTENSIONS: Final = frozenset(extension for group in EXTENSIONS.values() for extension in group)
# Pictures of a format that we do not read: an error, because leaving them out would quietly shrink the dataset.
FOREIGN_EXTENSIONS: Final = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga"})
SPLIT_FOLDERS: Final = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}


class PathEscapeError(ValueError):
    """An annotation refers to a file outside of the data set."""


class UnreadableTextError(ValueError):
    """A text file of the format that is none; `path` is relative to the root."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def split_named(name: str) -> Split | None:
    """The split that a folder or a file's stem is named after, `val` and `instances_val2017` alike."""
    lowered = name.lower()
    if lowered in SPLIT_FOLDERS:
        return SPLIT_FOLDERS[lowered]
    words = "".join(letter if letter.isalpha() else " " for letter in lowered).split()
    named = {SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS}
    return named.pop() if len(named) == 1 else None


def suffix(path: str) -> str:
    """The extension in lower case, with its dot."""
    return posixpath.splitext(path)[1].lower()


def stem(path: str) -> str:
    """The file's name without folder and extension."""
    return posixpath.splitext(posixpath.basename(path))[0]


class Tree:
    """Everything visible below a folder, by POSIX paths relative to it.

    Hidden files are not there. Links, special files, names that are not UTF-8 and folders that cannot be read are
    findings and not there either; a lone folder around all of it is stepped into.

    Raises:
        NotADirectoryError: the folder is none.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotADirectoryError(root)
        self.root = _unwrap(root.resolve())
        self.findings: list[Finding] = []
        self.folders: list[str] = []
        self.files: list[str] = []
        self._walk()

    def _walk(self) -> None:
        for parent, folder_names, file_names in os.walk(self.root, onerror=self._note_unread, followlinks=False):
            here = Path(parent)
            folder_names[:] = [name for name in sorted(folder_names) if self._stays(here / name, is_folder=True)]
            self.folders.extend(self._path(here / name) for name in folder_names)
            files = [name for name in sorted(file_names) if self._stays(here / name, is_folder=False)]
            self.files.extend(self._path(here / name) for name in files)

    def _path(self, entry: Path) -> str:
        return entry.relative_to(self.root).as_posix()

    def _note_unread(self, problem: OSError) -> None:
        self.findings.append(error(self.subject(problem), "UNREADABLE_FOLDER", f"cannot be read: {problem.strerror}"))

    def subject(self, problem: OSError) -> str:
        """The file or folder that an error of the system is about; the root when it does not say."""
        named = Path(problem.filename or self.root)
        return self._path(named) if named.is_relative_to(self.root) else "."

    def _stays(self, entry: Path, *, is_folder: bool) -> bool:
        if _is_hidden(entry.name):
            return False
        finding = _objection(entry, self._path(entry), is_folder=is_folder)
        if finding is not None:
            self.findings.append(finding)
        return finding is None

    @cached_property
    def images(self) -> list[str]:
        """Files that are pictures by their extension, also of kinds that we do not read."""
        return [path for path in self.files if suffix(path) in IMAGE_EXTENSIONS | FOREIGN_EXTENSIONS]

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[posixpath.basename(path)].append(path)
            found[stem(path)].append(path)
        return found

    @cached_property
    def _homes(self) -> frozenset[str]:
        return frozenset(posixpath.dirname(path) for path in self.images)

    def holds_pictures(self, folder: str) -> bool:
        """Whether pictures are directly in a folder."""
        return folder in self._homes

    def named(self, *extensions: str) -> list[str]:
        """Files with one of these extensions."""
        return [path for path in self.files if suffix(path) in extensions]

    def below(self, folder: str) -> Iterator[str]:
        """Files anywhere below a folder; "." is the root."""
        prefix = "" if folder in ("", ".") else folder.rstrip("/") + "/"
        return (path for path in self.files if path.startswith(prefix))

    def children(self, folder: str) -> list[str]:
        """Folders directly below a folder; "." is the root."""
        wanted = "" if folder == "." else folder
        return [path for path in self.folders if posixpath.dirname(path) == wanted]

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return path in self._present

    def read_text(self, path: str, limit_bytes: int = 64 * 2**20) -> str:
        """A text file's content, UTF-8.

        Raises:
            UnreadableTextError: it is larger than the limit or not UTF-8.
        """
        file = self.root / path
        if file.stat().st_size > limit_bytes:
            raise UnreadableTextError(path, f"is larger than {limit_bytes} bytes")
        try:
            return file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UnreadableTextError(path, f"is not UTF-8: {error.reason} at byte {error.start}") from error

    def locate(self, reference: str, folders: Iterable[str], split: Split | None = None) -> str | None:
        """The picture that an annotation refers to, or None when it is not there.

        Looked for below each of `folders`, then anywhere by its name, with or without extension, when only one has it
        (one of the split's, when several do). A reference whose own folder is there and holds other pictures is not
        looked for elsewhere: another folder's picture of the same name is another picture.

        Raises:
            PathEscapeError: the reference is absolute or leaves the data set.
        """
        cleaned = reference.strip().replace("\\", "/")
        if not cleaned or "\0" in cleaned:
            return None
        if cleaned.startswith("/") or PurePosixPath(cleaned).parts[0].endswith(":"):
            raise PathEscapeError(f"{reference!r} is an absolute path; it must be relative to the data set")
        named = posixpath.normpath(cleaned)
        escapes, at_home = True, False
        for folder in folders:
            path = posixpath.normpath(posixpath.join(folder, cleaned))
            if path.startswith("../") or path == "..":
                continue
            escapes = False
            if path in self._present:
                return path
            at_home = at_home or ("/" in named and self.holds_pictures(posixpath.dirname(path)))
        if escapes or named.startswith(".."):
            raise PathEscapeError(f"{reference!r} leads out of the data set")
        return self._by_its_name(named, split, anywhere=not at_home)

    def _by_its_name(self, path: str, split: Split | None, *, anywhere: bool) -> str | None:
        found = self._by_name.get(posixpath.basename(path), [])
        tail = [one for one in found if f"/{one}".endswith(f"/{path}") or f"/{_bare(one)}".endswith(f"/{path}")]
        for some in (tail, found if anywhere else []):
            if len(some) == 1:
                return some[0]
            of_split = [one for one in some if split is not None and split_of(one) is split]
            if len(of_split) == 1:
                return of_split[0]
        return None


def _objection(entry: Path, path: str, *, is_folder: bool) -> Finding | None:
    """Why an entry cannot be part of the data set."""
    try:
        if entry.is_symlink():
            # Links that stay inside would count the same picture twice, perhaps in two splits: refused alike.
            return error(path, "SYMLINK", "is a symbolic link; put the files themselves here")
        if not is_folder and not entry.is_file():
            return error(path, "SPECIAL_FILE", "is not a plain file")
    except OSError as problem:
        code = "UNREADABLE_FOLDER" if is_folder else "UNREADABLE_FILE"
        return error(path, code, f"cannot be read: {problem.strerror}")
    if path == legible(path):
        return None
    if is_folder or suffix(path) in IMAGE_EXTENSIONS | FOREIGN_EXTENSIONS:
        return error(path, "BAD_NAME", "has a name that is not UTF-8")
    return warning(path, "BAD_NAME", "has a name that is not UTF-8 and is skipped")


def _bare(path: str) -> str:
    return posixpath.splitext(path)[0]


def split_of(path: str) -> Split | None:
    """The split that one of a path's folders is named after; the innermost counts."""
    for part in reversed(PurePosixPath(path).parts[:-1]):
        if (split := split_named(part)) is not None:
            return split
    return None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))


def _unwrap(root: Path) -> Path:
    """Step into a lone folder that holds more than pictures, as archives of a dataset have."""
    # The walk tells what cannot be read.
    with contextlib.suppress(OSError):
        entries = _visible(root)
        while len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
            inner = _visible(entries[0])
            if not any(entry.is_dir() or entry.suffix.lower() in (".csv", ".json", ".yaml", ".yml") for entry in inner):
                break
            root, entries = entries[0], inner
    return root
