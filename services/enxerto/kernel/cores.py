"""How many CPU cores this process may use, in a container as well."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_HIERARCHIES: Final = Path("/sys/fs/cgroup")


def usable_cores(membership: Path = _MEMBERSHIP, hierarchies: Path = _HIERARCHIES) -> int:
    """Cores, at least 1: those that the process may run on, within the CPU time that Linux's control groups leave it.

    A container that may take the time of 4 CPUs sees all cores of its machine; with more threads than 4 it would have
    used up each period's time early, and stand still for the rest. A part of a core is left out for the same reason.

    Args:
        membership: file that names the process's groups, as proc(5) has it.
        hierarchies: folder where the groups are mounted, of version 1 or 2.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([affinity, *_quotas(membership, hierarchies)])))


def _quotas(membership: Path, hierarchies: Path) -> Iterator[float]:
    """CPUs that each group around the process may use the time of."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Without a namespace of its own a container is told a path of the host, and sees only its own group: the root.
        group = PurePosixPath(path.lstrip("/"))
        for one in (group, *group.parents):
            quota = _of_version_1(hierarchies / "cpu" / one) if controllers else _of_version_2(hierarchies / one)
            if quota is not None:
                yield quota


def _of_version_2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _of_version_1(group: Path) -> float | None:
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
