import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from enxerto.local import processes
from enxerto.local.commands import Commands
from enxerto.local.layout import Layout
from enxerto.local.ports import Ports
from enxerto.local.state import PlatformState, ProcessState, state_file
from flushes import Flush

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
)


def marked(instance: str) -> dict[str, str]:
    return {**os.environ, processes.INSTANCE_VARIABLE: instance}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def spawned(instance: str, log: Path) -> subprocess.Popen[bytes]:
    """A process whose environment can be read, which it cannot while the kernel is still making it."""
    child = processes.spawn(SLEEP, marked(instance), log)
    eventually(lambda: bool(processes.family(instance)))
    return child


def recorded(child: subprocess.Popen[bytes], log: Path) -> ProcessState:
    return ProcessState(child.pid, processes.started(child.pid), "", "", str(log))


def test_a_process_is_found_until_it_ends_and_a_later_one_of_its_pid_is_not(tmp_path: Path) -> None:
    instance = uuid.uuid4().hex
    child = spawned(instance, tmp_path / "log")
    state = recorded(child, tmp_path)
    assert state.started is not None
    assert processes.find(state, instance) is not None
    assert processes.find(dataclasses.replace(state, started=state.started - 1), instance) is None
    assert processes.find(state, uuid.uuid4().hex) is None
    child.kill()
    eventually(lambda: processes.find(state, instance) is None)
    child.wait()
    assert processes.find(state, instance) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a start does not follow the clock")
def test_a_step_of_the_clock_hides_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = uuid.uuid4().hex
    child = spawned(instance, tmp_path / "log")
    state = recorded(child, tmp_path)
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3600)
    assert processes.find(state, instance) is not None
    assert processes.started(child.pid) == state.started
    child.kill()
    child.wait()


def test_the_state_of_an_older_release_is_read_and_its_processes_are_known_by_their_mark(tmp_path: Path) -> None:
    instance = uuid.uuid4().hex
    child = spawned(instance, tmp_path / "log")
    facts = {"pid": child.pid, "create_time": 1.5, "address": "", "metrics_url": "", "log": ""}
    content = {"instance": instance, "port_base": 7300, "cpus": 4, "processes": {"registry": facts}}
    state_file(tmp_path).parent.mkdir()
    state_file(tmp_path).write_text(json.dumps(content))
    state = PlatformState.read(tmp_path)
    assert state is not None
    assert processes.find(state.processes["registry"], instance) is not None
    assert processes.find(state.processes["registry"], uuid.uuid4().hex) is None
    child.kill()
    child.wait()


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = processes.spawn(STUBBORN, os.environ, log)
    eventually(lambda: "ready" in log.read_text())
    processes.stop([psutil.Process(child.pid)], grace_s=0.3)
    assert child.wait(5) in (-signal.SIGKILL, 0)
    assert not psutil.pid_exists(child.pid)


def test_sweep_ends_the_family_and_no_stranger(tmp_path: Path) -> None:
    instance = uuid.uuid4().hex
    # A child of a child, in a session of its own, whose parent is gone.
    orphan = f"import subprocess, sys; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    parent = processes.spawn((sys.executable, "-W", "ignore", "-c", orphan), marked(instance), tmp_path / "log")
    stranger = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    parent.wait(10)
    assert len(processes.family(instance)) == 1
    processes.sweep(instance, grace_s=5)
    assert not processes.family(instance)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_sweep_spares_the_sessions_of_those_that_go_on(tmp_path: Path) -> None:
    instance = uuid.uuid4().hex
    log = tmp_path / "log"
    parent = f"import subprocess, sys; child = subprocess.Popen({SLEEP!r}); print(child.pid, flush=True); child.wait()"
    leader = processes.spawn((sys.executable, "-c", parent), marked(instance), log)
    other = processes.spawn(SLEEP, marked(instance), tmp_path / "other")
    eventually(lambda: "\n" in log.read_text())
    session = {leader.pid, int(log.read_text())}
    processes.sweep(instance, grace_s=5, spared=[leader.pid])
    assert {one.pid for one in processes.family(instance)} == session
    assert not psutil.pid_exists(other.pid)
    processes.sweep(instance, grace_s=5)
    assert not processes.family(instance)
    for child in (leader, other):
        child.wait(5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere titles are not written over the environment")
def test_a_process_of_ray_that_writes_its_title_keeps_the_mark(tmp_path: Path) -> None:
    instance = uuid.uuid4().hex
    environment = Commands(Layout(tmp_path), Ports(7300), instance, 4).ray().environment
    title = "from ray._raylet import setproctitle; setproctitle('ray::DashboardAgent'); print('ready', flush=True)"
    log = tmp_path / "log"
    child = processes.spawn((sys.executable, "-c", f"import time; {title}; time.sleep(60)"), environment, log)
    eventually(lambda: "ready" in log.read_text())
    assert psutil.Process(child.pid).cmdline()[0].startswith("ray::DashboardAgent")
    assert [one.pid for one in processes.family(instance)] == [child.pid]
    child.kill()
    child.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the block of the environment is read from /proc")
def test_a_gap_in_the_environment_hides_nobody(tmp_path: Path) -> None:
    # As a process has it that writes a long title over its arguments.
    instance = uuid.uuid4().hex
    code = f"""
import ctypes
arguments = (ctypes.c_char_p * 3)(b"sleep", b"60", None)
block = (ctypes.c_char_p * 4)(b"A=1", b"", b"{processes.INSTANCE_VARIABLE}={instance}", None)
ctypes.CDLL(None).execve(b"/bin/sleep", arguments, block)
"""
    child = processes.spawn((sys.executable, "-c", code), os.environ, tmp_path / "log")
    eventually(lambda: [one.pid for one in processes.family(instance)] == [child.pid])
    processes.sweep(instance, grace_s=5)
    assert child.wait(5) in (-signal.SIGTERM, 0)
    assert not psutil.pid_exists(child.pid)


def test_what_a_dead_leader_has_left_of_its_session_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = f"import subprocess, sys; print(subprocess.Popen({SLEEP!r}).pid, flush=True)"
    leader = processes.spawn((sys.executable, "-W", "ignore", "-c", child), os.environ, log)
    leader.wait(10)
    orphan = psutil.Process(int(log.read_text()))
    assert lives(orphan)
    processes.kill_session(leader.pid)
    eventually(lambda: not lives(orphan))
    # Nothing is left, which is no error.
    processes.kill_session(leader.pid)
    assert not lives(orphan)


def test_secrets_are_for_the_owner_only_and_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    layout.prepare()
    first = layout.ray_token.read_text()
    assert len(first) == 64
    assert layout.replica_secret.read_text() != first
    for path in (layout.ray_token, layout.replica_secret):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    layout.prepare()
    assert layout.ray_token.read_text() == first


def test_state_and_secrets_are_on_the_disk_before_they_have_their_names(tmp_path: Path, flushes: list[Flush]) -> None:
    layout = Layout(tmp_path)
    layout.prepare()
    PlatformState("abc", 7300, 4, {}).write(tmp_path)
    for path in (layout.ray_token, layout.replica_secret, state_file(tmp_path)):
        content = next(one for one in flushes if one.target.name.startswith(path.stem) and one.target != path)
        assert path.name not in content.names
        assert any(one.target == path.parent and path.name in one.names for one in flushes)


@pytest.mark.parametrize("home", ["/home/ann/.enxerto", "/a/very/long/home" * 8, "/häuser/" * 5])
def test_rays_sockets_fit(home: str) -> None:
    socket = Layout(Path(home)).ray_folder / "session_2026-01-01_00-00-00_000000_1000000/sockets/plasma_store"
    assert len(os.fsencode(socket)) <= 107


def test_the_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert PlatformState.read(tmp_path) is None
    process = ProcessState(1, 2.5, "127.0.0.1:7301", "http://127.0.0.1:7311/metrics", "/logs/registry.log")
    state = PlatformState("abc", 7300, 4, {"registry": process})
    state.write(tmp_path)
    assert PlatformState.read(tmp_path) == state
