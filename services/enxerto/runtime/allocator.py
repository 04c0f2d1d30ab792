"""How glibc hands out memory in processes that take and free large pieces in turns.

By default each piece above 128 KiB to 32 MiB is mapped and unmapped anew, and the kernel clears its pages every time;
docs/performance.md has what that costs a training step on a CPU and a request with a tensor.
"""

import ctypes
from typing import Final

ALLOCATOR_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
}
"""Environment of a process that trains: what is freed is kept for the next step.

glibc reads it when a process starts; other C libraries ignore it.
"""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 128 * 2**20
_LARGEST_HEAP_PIECE_BYTES = 32 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep up to 128 MiB of what it frees, so that the next message finds memory that is mapped.

    Pieces above 32 MiB still go back to the system at once. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_PIECE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
