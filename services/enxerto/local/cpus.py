"""How much Ray may hand out on this machine."""

import os

_LEAST = 4


def default_cpus() -> int:
    """The machine's CPUs, at least 4: a run of two workers and a replica or two must fit on a laptop at once."""
    return max(_LEAST, os.cpu_count() or 1)
