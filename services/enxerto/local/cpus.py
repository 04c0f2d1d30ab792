"""How much of this machine Ray may hand out, and a replica take."""

from enxerto.kernel.cores import usable_cores

_LEAST = 4
_THREADS = 2


def default_cpus() -> int:
    """The usable cores, at least 4: a run of two workers and a replica or two must fit on a laptop at once."""
    return max(_LEAST, usable_cores())


def replica_threads() -> int:
    """Threads of ONNX Runtime in a replica: 2, as docs/performance.md measures them, or the only core."""
    return min(_THREADS, usable_cores())
