"""How glibc hands out memory in processes that compute."""

from typing import Final

ALLOCATOR_ENVIRONMENT: Final = {
    # By default each activation above 128 KiB to 32 MiB is mapped and unmapped anew, and the kernel clears its pages
    # every time; docs/performance.md has what that costs a training step on a CPU.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
}
"""Environment of a process that frees and takes large arrays in turns: what is freed is kept for the next one.

glibc reads it when a process starts; other C libraries ignore it.
"""
