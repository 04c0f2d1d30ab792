"""Starts, stops and describes the platform of one ENXERTO_HOME."""

import contextlib
import fcntl
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enxerto.local import processes
from enxerto.local.commands import Commands
from enxerto.local.cpus import default_cpus
from enxerto.local.errors import BusyError, StartFailedError
from enxerto.local.layout import Layout
from enxerto.local.ports import DEFAULT_BASE, HOST, Ports
from enxerto.local.readiness import ray_answers, service_answers
from enxerto.local.state import RAY, SERVICES, PlatformState, ProcessState, state_file

Report = Callable[[str, str], None]
"""Is told a process and what happens to it."""

_NAMES = (RAY, *SERVICES)
_POLL_S = 0.1
_TAIL_LINES = 15
_SERVICE_GRACE_S = 25.0
_RAY_GRACE_S = 10.0
_LEFT_GRACE_S = 3.0
# What was killed holds its ports until the last of its threads has gone.
_DYING_S = 5.0
# Ray gives up when its machine has not registered after 30 s, as on a machine that is busy, and has no setting for it.
_RAY_TRIES = 3


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process as it is now."""

    name: str
    pid: int | None
    """None when it does not run."""
    address: str
    health: str
    """`serving`, `not serving` or `stopped`."""
    metrics_url: str
    log: str


def _ignore(_process: str, _what: str) -> None:
    pass


def _planned(before: PlatformState | None, port_base: int | None, cpus: int | None) -> PlatformState:
    if before is not None:
        port_base, cpus = port_base or before.port_base, cpus or before.cpus
    return PlatformState(uuid.uuid4().hex, port_base or DEFAULT_BASE, cpus or default_cpus(), {})


class Supervisor:
    """The one owner of a home's processes."""

    def __init__(self, home: Path) -> None:
        self._home = home.expanduser().absolute()
        self._layout = Layout(self._home)
        self._children: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._layout.lock.parent.mkdir(parents=True, exist_ok=True)
        with self._layout.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"another command is starting or stopping the platform under {self._home}") from error
            yield

    def up(
        self,
        *,
        port_base: int | None = None,
        cpus: int | None = None,
        timeout_s: float = 120.0,
        report: Report = _ignore,
    ) -> bool:
        """Start what does not run yet, and wait until everything answers.

        A platform of which some processes ended gets these back, on its old ports. One that ended as a whole without
        `down`, as with its machine, gets its old ports too, so that clients find it again.

        Args:
            port_base: first of the 500 ports to use; None takes those of before, or 7300.
            cpus: what Ray may hand out to workers and replicas; None takes as many as before, or the machine's.
            timeout_s: how long to wait for everything to answer.
            report: told what happens.

        Returns:
            Whether anything had to be started.

        Raises:
            PortInUseError: nothing was started.
            StartFailedError: what was started is stopped again, and what ran before goes on.
            BusyError: another command starts or stops the same platform.
        """
        with self._alone():
            state = PlatformState.read(self._home)
            running = [name for name in _NAMES if state and name in state.processes and self._runs(state, name)]
            if state is None or not running:
                self.sweep(state)
                patience_s = _DYING_S if state else 0.0
                state = _planned(state, port_base, cpus)
                Ports(state.port_base).check(patience_s)
                self._layout.prepare()
                # Sessions of earlier starts are of no use, and Ray never removes them.
                shutil.rmtree(self._layout.ray_folder, ignore_errors=True)
                self._layout.prepare()
            elif RAY not in running:
                # Agents and jobs live on for half a minute without their Ray, and hold its ports.
                processes.sweep(state.instance, _LEFT_GRACE_S, [state.processes[name].pid for name in running])
            missing = [name for name in _NAMES if name not in running]
            if missing:
                self._start(state, missing, timeout_s, report)
            return bool(missing)

    def _runs(self, state: PlatformState, name: str) -> bool:
        return processes.find(state.processes[name], state.instance) is not None

    def _start(self, state: PlatformState, names: list[str], timeout_s: float, report: Report) -> None:
        commands = Commands(self._layout, Ports(state.port_base), state.instance, state.cpus)
        begun = time.monotonic()
        waiting: dict[str, subprocess.Popen[bytes]] = {}
        older = len(self._children)
        tries = 1
        try:
            for name in names:
                state, waiting[name] = self._spawn(state, name, commands, report)
            while waiting:
                for name, child in list(waiting.items()):
                    if child.poll() is not None:
                        if name != RAY or tries >= _RAY_TRIES:
                            raise self._failure(name, f"ended with status {child.returncode}")
                        tries += 1
                        processes.kill_session(child.pid)
                        state, waiting[name] = self._spawn(state, name, commands, report)
                    elif self._answers(name, state.processes[name]):
                        report(name, f"ready after {time.monotonic() - begun:.1f} s")
                        del waiting[name]
                if waiting and time.monotonic() - begun > timeout_s:
                    raise self._failure(next(iter(waiting)), f"did not answer within {timeout_s:g} s")
                time.sleep(_POLL_S)
        except BaseException:
            # Also on Ctrl-C: half a platform helps nobody.
            for name in names:
                report(name, "stopping")
            self._undo(state, names, self._children[older:])
            raise

    def _undo(self, state: PlatformState, names: Sequence[str], children: Sequence[subprocess.Popen[bytes]]) -> None:
        """End what a start of `names` has begun; what ran before goes on."""
        processes.stop_children(children, _SERVICE_GRACE_S)
        self._children = [child for child in self._children if child not in children]
        others = [process.pid for name, process in state.processes.items() if name not in names]
        if not others:
            self._stop(state)
        elif RAY in names:
            processes.sweep(state.instance, _LEFT_GRACE_S, others)

    def _spawn(
        self, state: PlatformState, name: str, commands: Commands, report: Report
    ) -> tuple[PlatformState, subprocess.Popen[bytes]]:
        self._layout.ready_file(name).unlink(missing_ok=True)
        command = commands.ray() if name == RAY else commands.service(name)
        child = processes.spawn(command.arguments, command.environment, self._layout.log(name))
        self._children.append(child)
        report(name, "starting")
        state = replace(state, processes={**state.processes, name: self._describe(name, child.pid, commands)})
        # Written at once, so that `down` finds what a dead `up` left behind.
        state.write(self._home)
        return state, child

    def _describe(self, name: str, pid: int, commands: Commands) -> ProcessState:
        ports = commands.ports
        port = ports["Ray's dashboard" if name == RAY else name]
        metrics = ports["Ray's metrics" if name == RAY else f"{name} metrics"]
        return ProcessState(
            pid=pid,
            started=processes.started(pid),
            address=f"{HOST}:{port}",
            metrics_url=f"http://{HOST}:{metrics}/metrics",
            log=str(self._layout.log(name)),
        )

    def _answers(self, name: str, process: ProcessState) -> bool:
        if name == RAY:
            return ray_answers(f"http://{process.address}", self._layout.ray_token)
        # Another program on the same port would answer too: the ready file is this service's own.
        return self._layout.ready_file(name).exists() and service_answers(process.address)

    def _failure(self, name: str, what: str) -> StartFailedError:
        log = self._layout.log(name)
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if log.exists() else []
        return StartFailedError(name, what, str(log), "\n".join(lines))

    def down(self, *, report: Report = _ignore) -> bool:
        """Stop everything: the services drain first, then Ray; what does not end is killed.

        Returns:
            Whether anything was running.

        Raises:
            BusyError: another command starts or stops the same platform.
        """
        with self._alone():
            state = PlatformState.read(self._home)
            if state is None:
                return False
            found = bool(processes.family(state.instance))
            self._stop(state, report)
            return found

    def _stop(self, state: PlatformState, report: Report = _ignore) -> None:
        for names, grace_s in ((SERVICES, _SERVICE_GRACE_S), ((RAY,), _RAY_GRACE_S)):
            found = {
                name: processes.find(state.processes[name], state.instance) for name in names if name in state.processes
            }
            for name in found:
                report(name, "stopping")
            processes.stop([process for process in found.values() if process], grace_s)
        self.sweep(state)
        for child in self._children:
            child.wait()
        self._children.clear()
        for name in state.processes:
            report(name, "stopped")
        state_file(self._home).unlink(missing_ok=True)

    def sweep(self, state: PlatformState | None) -> None:
        """End what is left of a platform: workers and replicas that outlived their Ray."""
        if state is not None:
            processes.sweep(state.instance, _LEFT_GRACE_S)

    def status(self) -> list[ProcessStatus]:
        """Every process of the platform; empty when none was started."""
        state = PlatformState.read(self._home)
        if state is None:
            return []
        return [self._status(name, process, state.instance) for name, process in state.processes.items()]

    def _status(self, name: str, process: ProcessState, instance: str) -> ProcessStatus:
        found = processes.find(process, instance)
        health = "stopped"
        if found is not None:
            health = "serving" if self._answers(name, process) else "not serving"
        return ProcessStatus(
            name, found.pid if found else None, process.address, health, process.metrics_url, process.log
        )
