"""Child processes in sessions of their own, told from strangers by pid, start time and a mark in their environment."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from enxerto.local.state import ProcessState

INSTANCE_VARIABLE = "ENXERTO_INSTANCE"
"""Every process of one platform carries the same random value, and passes it on to its children."""

# The field "starttime" of /proc/PID/stat, counted from the one after the name, which may hold anything.
_START_TICKS = 19


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, its output appended to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def started(pid: int) -> float:
    """When a process started: in clock ticks since its machine did, or without /proc in seconds since 1970.

    On Linux the latter moves with every step of the machine's clock.
    """
    facts = Path(f"/proc/{pid}/stat")
    if not facts.exists():
        return float(psutil.Process(pid).create_time())
    return float(facts.read_text().rpartition(")")[2].split()[_START_TICKS])


def find(process: ProcessState, instance: str) -> psutil.Process | None:
    """The running process of a recorded state; None when it ended, even when its pid is somebody else's now.

    Args:
        process: the state.
        instance: the mark of its platform.
    """
    # A process of another user cannot be looked into: it is not ours.
    with contextlib.suppress(psutil.Error, OSError):
        found = psutil.Process(process.pid)
        # The mark too, for after a restart of the machine a stranger may have started in the same tick.
        same = process.started in (None, started(process.pid)) and _carries(found, instance)
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    return None


def _carries(process: psutil.Process, instance: str) -> bool:
    block = Path(f"/proc/{process.pid}/environ")
    if not block.exists():
        return bool(process.environ().get(INSTANCE_VARIABLE) == instance)
    # Read here, for psutil stops at the first gap, which a process may leave that writes a long title.
    return f"{INSTANCE_VARIABLE}={instance}".encode() in block.read_bytes().split(b"\0")


def family(instance: str, spared: Collection[int] = ()) -> list[psutil.Process]:
    """Every living process that carries the platform's mark.

    Args:
        instance: the mark.
        spared: pids of the leaders whose sessions are left out.
    """
    members = []
    for process in psutil.process_iter():
        # Processes of other users, and those that end meanwhile, cannot be looked into: they are not ours.
        with contextlib.suppress(psutil.Error, OSError):
            if not _carries(process, instance) or os.getsid(process.pid) in spared:
                continue
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def stop(processes: Sequence[psutil.Process], grace_s: float) -> None:
    """SIGTERM, wait, then SIGKILL what is left."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                # It may have ended by itself.
                process.send_signal(number)
        _gone, processes = psutil.wait_procs(processes, timeout=wait_s)


def stop_children(children: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """Stop those of our own children that still run, all at once."""
    stop([psutil.Process(child.pid) for child in children if child.poll() is None], grace_s)
    for child in children:
        child.wait()


def kill_session(leader: int) -> None:
    """SIGKILL what is left of the session of a process that has ended."""
    with contextlib.suppress(ProcessLookupError):
        # Nothing is left.
        os.killpg(leader, signal.SIGKILL)


def sweep(instance: str, grace_s: float, spared: Collection[int] = ()) -> None:
    """End whatever carries the mark but is of no spared session, until nothing does.

    A dying parent may still start children.
    """
    deadline = time.monotonic() + grace_s + 20
    while members := family(instance, spared):
        stop(members, grace_s)
        if time.monotonic() > deadline:
            return
