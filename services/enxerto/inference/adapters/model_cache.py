"""The folder of fetched ONNX files, which the replicas of a machine share. When a file was used last is its time."""

import contextlib
import os
import shutil
import time
from pathlib import Path

PARTIAL = ".partial"
"""How the name of an unfinished download ends."""

ENGINES = ".tensorrt"
"""How the name of a folder ends with what TensorRT made of a model."""

NOTE = ".digest"
"""How the name of a note ends that says which file a version has."""

_KEPT_BYTES = 10 * 2**30
_IN_USE_S = 3600.0


def use(path: Path) -> bool:
    """Whether a file is there; it then stays for an hour, in which it is to be opened."""
    try:
        os.utime(path)
    except OSError:
        # A folder that others have filled may be read-only.
        return path.exists()
    return True


def write_note(note: Path, digest: str) -> None:
    """Remember which file a version has. It is read in an outage only, so a full disk is no reason not to start."""
    if read_note(note) != digest:
        with contextlib.suppress(OSError):
            note.write_text(digest)


def read_note(note: Path) -> str:
    """The digest in a note; empty when there is none."""
    try:
        digest = note.read_text(errors="replace")
    except OSError:
        return ""
    return digest if digest.isalnum() else ""


def prune(folder: Path, kept_bytes: int = _KEPT_BYTES) -> None:
    """Remove the files that were not used longest, until the others have no more bytes, and what broken downloads left.

    Nothing that was used in the last hour goes: another replica may be about to open it. What is open stays readable.
    """
    unused_since = time.time() - _IN_USE_S
    for partial in folder.glob(f"*{PARTIAL}"):
        _remove(partial, unused_since)
    models = sorted(_found(folder), reverse=True)
    held_bytes = 0
    for _, size_bytes, path in models:
        held_bytes += size_bytes
        if held_bytes > kept_bytes:
            _remove(path, unused_since)
    for engines in folder.glob(f"*{ENGINES}"):
        if not engines.with_suffix(".onnx").exists():
            shutil.rmtree(engines, ignore_errors=True)
    for note in folder.glob(f"*{NOTE}"):
        if not (folder / f"{read_note(note)}.onnx").exists():
            _remove(note, unused_since)


def _found(folder: Path) -> list[tuple[float, int, Path]]:
    """When each model was used last, its bytes, and the file."""
    found = []
    for path in folder.glob("*.onnx"):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            found.append((facts.st_mtime, facts.st_size, path))
    return found


def _remove(path: Path, unused_since: float) -> None:
    # What another replica removes, or does not let this one remove, is not this one's concern.
    with contextlib.suppress(OSError):
        if path.stat().st_mtime < unused_since:
            path.unlink()
