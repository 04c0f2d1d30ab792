"""How much of this machine Ray may hand out, and a replica take."""

import os

_LEAST = 4
_THREADS = 2


def default_cpus() -> int:
    """The machine's CPUs, at least 4: a run of two workers and a replica or two must fit on a laptop at once."""
    return max(_LEAST, os.cpu_count() or 1)


def replica_threads() -> int:
    """Threads of ONNX Runtime in a replica: 2, as docs/performance.md measures them, or the machine's only core."""
    return min(_THREADS, os.cpu_count() or 1)
