"""The whole platform as processes, for tests: `platform` in tests/conftest.py shares one per session.

with running_platform() as platform:
    platform.client.import_dataset("digits", folder)
    platform.restart("training", kill=True)
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from enxerto.client import Client
from enxerto.local import processes
from enxerto.local.layout import Layout
from enxerto.local.ports import Ports
from enxerto.local.state import PlatformState
from enxerto.local.supervisor import Supervisor

START_S = 240.0
"""How long a platform may take to start on a machine that is busy with other tests."""


@dataclass(frozen=True)
class Platform:
    """Ray and the three services on free ports of the loopback."""

    home: Path
    supervisor: Supervisor
    client: Client

    @property
    def state(self) -> PlatformState:
        """Pids and addresses as they are now."""
        state = PlatformState.read(self.home)
        assert state is not None
        return state

    def address(self, service: str) -> str:
        """`host:port` of `registry`, `training` or `inference`."""
        return self.state.processes[service].address

    def metrics_url(self, service: str) -> str:
        """Where Prometheus would scrape a service."""
        return self.state.processes[service].metrics_url

    def log(self, service: str) -> str:
        """What a service has logged."""
        return Path(self.state.processes[service].log).read_text()

    def signal(self, service: str, number: signal.Signals) -> psutil.Process:
        """Send a signal to a service and return its process."""
        process = psutil.Process(self.state.processes[service].pid)
        process.send_signal(number)
        return process

    def kill(self, service: str) -> None:
        """SIGKILL a service and wait until it is gone."""
        self.signal(service, signal.SIGKILL).wait(10)

    def restart_with(self, service: str, settings: Mapping[str, str]) -> None:
        """End a service and start it again on its port with settings of a test's own, until the platform ends."""
        process = psutil.Process(self.state.processes[service].pid)
        command, environment = process.cmdline(), {**process.environ(), **settings}
        process.terminate()
        process.wait(60)
        with Path(self.state.processes[service].log).open("ab") as log:
            started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        # The platform's end ends it, and nobody waits for it here: a thread takes its exit status.
        threading.Thread(target=started.wait, daemon=True).start()
        with grpc.insecure_channel(self.address(service)) as channel:
            grpc.channel_ready_future(channel).result(START_S)

    def lose_power(self) -> None:
        """SIGKILL everything of the platform at once, as a machine does that loses its power."""
        instance = self.state.instance
        while members := processes.family(instance):
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    # It went with its parent.
                    process.kill()
            # Long, for what dies holds its ports until the last of its threads has gone.
            psutil.wait_procs(members, 60)

    def start_missing(self) -> None:
        """Start again what does not run, on its old port."""
        self.supervisor.up(timeout_s=START_S)

    def enxerto(self, *arguments: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run the `enxerto` command against this platform."""
        return run_enxerto(self.home, arguments, timeout_s)


def run_enxerto(home: Path, arguments: Sequence[str], timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run the `enxerto` command with a home of its own."""
    command = [str(Path(sys.executable).with_name("enxerto")), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENXERTO_")}
    environment |= {"ENXERTO_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextlib.contextmanager
def running_platform() -> Iterator[Platform]:
    """Run a platform in a folder of its own; at the end nothing of it is left, neither process nor file."""
    # Not pytest's folder: Ray's sockets need short paths.
    home = Path(tempfile.mkdtemp(prefix="ex-"))
    supervisor = Supervisor(home)
    try:
        supervisor.up(port_base=Ports.free().base, cpus=4, timeout_s=START_S)
        with Client(home=home) as client:
            yield Platform(home, supervisor, client)
    finally:
        # Read here, for a platform that has lost its power is another one afterwards.
        state = PlatformState.read(home)
        supervisor.down()
        shutil.rmtree(Layout(home).ray_folder, ignore_errors=True)
        shutil.rmtree(home)
    assert state is not None
    left = processes.family(state.instance)
    assert not left, f"processes left behind: {left}"
