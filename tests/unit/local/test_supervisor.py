"""What the supervisor does before and beside the processes; the platform as a whole is in tests/e2e."""

import fcntl
import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from enxerto.local import processes
from enxerto.local.commands import Command, Commands
from enxerto.local.errors import BusyError, PortInUseError, StartFailedError
from enxerto.local.layout import Layout
from enxerto.local.ports import Ports
from enxerto.local.state import RAY, SERVICES, PlatformState, ProcessState, state_file
from enxerto.local.supervisor import Supervisor

Children = Mapping[str, subprocess.Popen[bytes]]


@pytest.fixture
def taken() -> int:
    """A base of which the training service's port is taken."""
    return Ports.free().base


def test_a_port_in_use_is_named_with_its_holder_and_nothing_is_started(tmp_path: Path, taken: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken + 2))
        other.listen()
        with pytest.raises(
            PortInUseError, match=rf"port {taken + 2} \(training\) is in use by .*pid {os.getpid()}"
        ) as caught:
            Supervisor(tmp_path).up(port_base=taken)
    assert "--port-base" in str(caught.value)
    assert not state_file(tmp_path).exists()


def test_a_platform_that_ended_without_down_takes_its_old_ports(tmp_path: Path, taken: int) -> None:
    # As after a restart of the machine: what is recorded runs no more.
    gone = ProcessState(os.getpid(), 1.0, f"127.0.0.1:{taken + 2}", "", "")
    state = PlatformState("no-such-instance", taken, 4, {"training": gone})
    state.write(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken + 2))
        other.listen()
        with pytest.raises(PortInUseError, match=rf"port {taken + 2} \(training\)"):
            Supervisor(tmp_path).up()
    assert PlatformState.read(tmp_path) == state


@pytest.fixture
def instance() -> str:
    """A platform's mark."""
    return uuid.uuid4().hex


@pytest.fixture
def platform_without(
    tmp_path: Path, instance: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Children]]:
    """Processes that only wait in place of a platform's, of which one has ended; all that starts now ends at once."""
    Layout(tmp_path).prepare()
    children: dict[str, subprocess.Popen[bytes]] = {}

    def start(ended: str) -> Children:
        states = {ended: ProcessState(2**22, 1.0, "127.0.0.1:1", "", "")}
        for name in {RAY, *SERVICES} - {ended}:
            child = children[name] = processes.spawn(("sleep", "60"), marked(instance), tmp_path / "log")
            states[name] = ProcessState(child.pid, processes.started(child.pid), "127.0.0.1:1", "", "")
        PlatformState(instance, Ports.free().base, 4, states).write(tmp_path)
        return children

    monkeypatch.setattr(Commands, "service", lambda _self, _name: Command(("false",), marked(instance)))
    monkeypatch.setattr(Commands, "ray", lambda _self: Command(("false",), marked(instance)))
    yield start
    for child in children.values():
        child.kill()
        child.wait()


def marked(instance: str) -> dict[str, str]:
    return {**os.environ, processes.INSTANCE_VARIABLE: instance}


@pytest.mark.parametrize("ended", ["training", RAY])
def test_what_ran_before_outlives_a_repair_that_fails(
    tmp_path: Path, platform_without: Callable[[str], Children], ended: str
) -> None:
    others = platform_without(ended)
    with pytest.raises(StartFailedError, match=f"{ended} ended with status 1"):
        Supervisor(tmp_path).up()
    assert {name: child.poll() for name, child in others.items()} == dict.fromkeys(others)
    found = {status.name: status.pid for status in Supervisor(tmp_path).status()}
    assert found == {ended: None, **{name: child.pid for name, child in others.items()}}


def test_ctrl_c_during_a_repair_ends_only_what_it_started(
    tmp_path: Path,
    instance: str,
    platform_without: Callable[[str], Children],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = platform_without("training")
    monkeypatch.setattr(Commands, "service", lambda _self, _name: Command(("sleep", "60"), marked(instance)))

    def interrupt(_name: str, what: str) -> None:
        if what == "starting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Supervisor(tmp_path).up(report=interrupt)
    assert {one.pid for one in processes.family(instance)} == {child.pid for child in others.values()}


def test_a_start_from_nothing_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def waiting(commands: Commands) -> Command:
        started.append(commands.instance)
        return Command(("sleep", "60"), marked(commands.instance))

    monkeypatch.setattr(Commands, "ray", waiting)
    monkeypatch.setattr(Commands, "service", lambda commands, _name: Command(("false",), marked(commands.instance)))
    with pytest.raises(StartFailedError, match="ended with status 1"):
        Supervisor(tmp_path).up(port_base=Ports.free().base)
    assert not processes.family(started[0])
    assert not state_file(tmp_path).exists()


def test_down_of_nothing_does_nothing(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    assert not supervisor.down()
    assert supervisor.status() == []


def test_down_never_ends_a_stranger_with_a_recorded_pid(tmp_path: Path) -> None:
    stranger = ProcessState(os.getpid(), 1.0, "127.0.0.1:1", "", "")
    PlatformState("no-such-instance", 7300, 4, {"registry": stranger}).write(tmp_path)
    supervisor = Supervisor(tmp_path)
    assert [(status.health, status.pid) for status in supervisor.status()] == [("stopped", None)]
    assert not supervisor.down()
    assert not state_file(tmp_path).exists()


def test_two_commands_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            Supervisor(tmp_path).down()


def test_settings_of_the_shell_do_not_reach_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("ENXERTO_TRAINING_DATABASE_URL", "elsewhere")
    commands = Commands(Layout(tmp_path), Ports(7300), "abc", 4)
    environment = commands.service("training").environment
    assert "RAY_ADDRESS" not in environment
    assert "elsewhere" not in environment.values()
    assert environment["ENXERTO_TRAINING_PORT"] == "7302"
    assert environment["ENXERTO_TRAINING_HOST"] == "127.0.0.1"


def test_a_replica_takes_no_more_threads_than_there_are_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, "1"), (2, "2"), (64, "2")):
        monkeypatch.setattr("enxerto.local.cpus.usable_cores", lambda cores=cores: cores)
        environment = Commands(Layout(tmp_path), Ports(7300), "abc", 4).service("inference").environment
        assert environment["ENXERTO_INFERENCE_REPLICA_THREADS"] == threads


def test_one_base_moves_every_port(tmp_path: Path) -> None:
    def ports_of(base: int) -> list[int]:
        commands = Commands(Layout(tmp_path), Ports(base), "abc", 4)
        texts = [*commands.ray().arguments]
        return sorted(int(text.rpartition("=")[2]) for text in texts if "port=" in text and not text.endswith("=0"))

    assert [port + 1000 for port in ports_of(7300)] == ports_of(8300)
