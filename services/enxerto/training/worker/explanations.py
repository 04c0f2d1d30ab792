"""What a worker met, as an error that says what to do about it. A machine that is too small for a run is no fault."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from obstore.store import LocalStore

from enxerto.training.errors import DiskFullError, GpuMemoryError, MachineMemoryError
from enxerto.training.worker.order import JobOrder

_GPU_TEXTS: Final = ("CUDA out of memory", "CUDA error: out of memory")
_MEMORY_TEXTS: Final = ("can't allocate memory", "Cannot allocate memory", "Failed to allocate memory")
"""Of torch, of the system and of ONNX Runtime, which have no type of their own for it."""
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT)
_DISK_TEXT: Final = "No space left on device"
"""Libraries in Rust say it in a text only."""


def explain(error: Exception, order: JobOrder) -> Exception:
    """The shortage behind an error, wherever in its chain of causes it is; else the error itself."""
    for one in _chain(error):
        text = str(one)
        if isinstance(one, torch.OutOfMemoryError) or any(known in text for known in _GPU_TEXTS):
            return GpuMemoryError(_size_in(text))
        if isinstance(one, MemoryError) or any(known in text for known in _MEMORY_TEXTS):
            return MachineMemoryError(_size_in(text))
        if (isinstance(one, OSError) and one.errno in _DISK_ERRORS) or _DISK_TEXT in text:
            return DiskFullError(_full_folder(one, order))
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _size_in(text: str) -> str:
    """What was asked for, where the text tells."""
    found = re.search(r"allocate:? ([\d.]+ ?(?:[KMGT]iB|bytes))", text)
    return found[1] if found else ""


def _full_folder(error: BaseException, order: JobOrder) -> Path:
    """The folder of the file that could not be written; where no file is named, the fullest that a job writes to."""
    filename = getattr(error, "filename", None)
    if isinstance(filename, str):
        return Path(filename).parent
    store = order.store()
    written = [Path(tempfile.gettempdir()), order.cache_folder]
    if isinstance(store, LocalStore):
        written.append(Path(store.prefix or "/"))
    return min((folder for folder in written if folder.is_dir()), key=lambda folder: shutil.disk_usage(folder).free)
