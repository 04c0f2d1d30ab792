"""The training service as a process, with a registry and, when asked for, a Ray of its own. For the training tests."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil

from enxerto.local.readiness import ray_answers
from enxerto.training.v1.dataset_service_pb2_grpc import DatasetServiceStub
from enxerto.training.v1.training_service_pb2_grpc import TrainingServiceStub

T = TypeVar("T")
READY_S = 60.0


def eventually(look: Callable[[], T | None], timeout_s: float = READY_S, interval_s: float = 0.1) -> T:
    """The first answer that is not None."""
    end = time.monotonic() + timeout_s
    while (answer := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError("the condition did not come true")
        time.sleep(interval_s)
    return answer


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class ServiceProcess:
    """One of our services as a process."""

    module: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where its log goes."""
        return self.folder / f"{self.module}.log"

    @property
    def address(self) -> str:
        """Host and port of its gRPC port."""
        return f"127.0.0.1:{self.ports['port']}"

    def start(self) -> None:
        """Start it and wait until it listens; a restart takes the same port."""
        prefix = f"{self.module.upper()}_"
        ready = self.folder / f"{self.module}.ready"
        ready.unlink(missing_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ENXERTO_", "RAY_"))}
        own = {f"{prefix.replace('.', '_')}{key}": value for key, value in self.environment.items()}
        own[f"{prefix.replace('.', '_')}READY_FILE"] = str(ready)
        own[f"{prefix.replace('.', '_')}PORT"] = str(self.ports.get("port", 0))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module], env={**inherited, **own}, stderr=log, stdout=log
            )
        process = self.process

        def listening() -> dict[str, int] | None:
            if process.poll() is not None:
                raise RuntimeError(f"{self.module} ended: {self.log.read_text()[-3000:]}")
            return json.loads(ready.read_text()) if ready.exists() else None

        self.ports = eventually(listening)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it by a signal and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(40)


@dataclass
class Ray:
    """A Ray head."""

    dashboard_url: str
    token_file: Path
    folder: Path

    def call(self, path: str, body: object = None) -> object:
        """Call its REST API: GET, or POST with a body."""
        request = urllib.request.Request(
            self.dashboard_url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token_file.read_text().strip()}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def running_tasks(self) -> list[str]:
        """Names of the tasks that run, as Ray lists them."""
        wanted = "filter_keys=state&filter_predicates=%3D&filter_values=RUNNING"
        answer: Any = self.call(f"/api/v0/tasks?limit=1000&{wanted}")
        return [one["name"] for one in answer["data"]["result"]["result"]]

    def train_workers(self) -> list[psutil.Process]:
        """Ray Train's workers below this Ray's own raylet."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # One that ends meanwhile is none of them.
                title = process.name() + " ".join(process.cmdline())
                parent = process.parent()
                if "RayTrainWorker" in title and parent and str(self.folder) in " ".join(parent.cmdline()):
                    found.append(process)
        return found


@dataclass
class RayNode:
    """Another machine of a cluster: a raylet of its own."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL everything of it at once, as a machine does that loses its power."""
        kill_family(self.process)


def kill_family(leader: subprocess.Popen[bytes]) -> None:
    """SIGKILL the leader of a session and all that it has started, in whatever sessions."""
    # Jobs have sessions of their own: the process group alone would leave them.
    family = psutil.Process(leader.pid).children(recursive=True)
    os.killpg(leader.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            # It went with the group.
            process.kill()
    psutil.wait_procs(family, 30)
    leader.wait(30)


@dataclass
class OwnRay(Ray):
    """A Ray head that a test may kill and start again on the same ports."""

    command: list[str]
    environment: dict[str, str]
    address: str
    """Where other machines join."""
    process: subprocess.Popen[bytes] | None = None
    nodes: list[RayNode] = field(default_factory=list)

    def start(self) -> None:
        """Start it and wait until it has a machine."""
        with (self.folder / "ray.log").open("ab") as log:
            process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.process = process

        def up() -> bool | None:
            if process.poll() is not None:
                raise RuntimeError((self.folder / "ray.log").read_text()[-3000:])
            return ray_answers(self.dashboard_url, self.token_file) or None

        eventually(up, 90)

    def kill(self) -> None:
        """SIGKILL everything of it at once, jobs and workers too, as a machine does that loses its power."""
        assert self.process is not None
        kill_family(self.process)

    def add_node(self, cpus: int = 1) -> RayNode:
        """Let another machine join, and wait until the cluster counts it."""
        before = self.living_nodes()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        flags = {"address": self.address, "num-cpus": cpus, **node_flags()}
        command += [f"--{name}={value}" for name, value in flags.items()]
        with (self.folder / "node.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        node = RayNode(process)
        self.nodes.append(node)

        def joined() -> bool | None:
            if process.poll() is not None:
                raise RuntimeError((self.folder / "node.log").read_text()[-3000:])
            return True if self.living_nodes() > before else None

        eventually(joined, 120, 0.5)
        return node

    def living_nodes(self) -> int:
        """Machines that the cluster counts, with the head."""
        answer: Any = self.call("/api/v0/nodes?limit=100")
        return sum(one["state"] == "ALIVE" for one in answer["data"]["result"]["result"])

    def stop(self) -> None:
        """End it and whatever it has left."""
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its children are ended with its group below.
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            # The group is gone when everything has ended by itself.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def node_flags() -> dict[str, object]:
    """What every raylet is started with: ports of its own and little memory."""
    ports = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
        "node-manager-port",
        "object-manager-port",
    )
    return {
        "node-ip-address": "127.0.0.1",
        **{name: free_port() for name in ports},
        "min-worker-port": 0,
        "max-worker-port": 0,
        "object-store-memory": 128 * 2**20,
    }


@contextlib.contextmanager
def running_ray(cpus: int = 2) -> Iterator[OwnRay]:
    """A Ray head of its own, gone with the context: for tests that kill it; the others share the platform's."""
    # Not pytest's folder: Ray's sockets need short paths.
    folder = Path(tempfile.mkdtemp(prefix="tr-"))
    token = folder / "token"
    token.write_text(secrets.token_hex(24))
    dashboard = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_USAGE_STATS_ENABLED": "0",
        # With Ray's niceness of 15, workers hardly get to run beside the machine's other tests.
        "RAY_worker_niceness": "0",
    }
    port = free_port()
    flags = {
        "port": port,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "ray-client-server-port": free_port(),
        "num-cpus": cpus,
        "temp-dir": folder / "r",
        **node_flags(),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    ray = OwnRay(f"http://127.0.0.1:{dashboard}", token, folder, command, environment, f"127.0.0.1:{port}")
    try:
        ray.start()
        yield ray
    finally:
        ray.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Stack:
    """A registry and a training service."""

    registry: ServiceProcess
    training: ServiceProcess
    folder: Path
    import_root: Path

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel to the training service."""
        with grpc.insecure_channel(self.training.address) as channel:
            yield channel

    @contextlib.contextmanager
    def stubs(self) -> Iterator[tuple[DatasetServiceStub, TrainingServiceStub]]:
        """Stubs of both services."""
        with self.channel() as channel:
            yield DatasetServiceStub(channel), TrainingServiceStub(channel)


@contextlib.contextmanager
def running_stack(ray: Ray | None, folder: Path, **settings: str) -> Iterator[Stack]:
    """A registry and a training service with further settings; without a Ray, runs wait in QUEUED."""
    import_root = folder / "data"
    import_root.mkdir(parents=True)
    registry = ServiceProcess(
        "enxerto.registry",
        {"DATABASE_URL": f"sqlite+aiosqlite:///{folder}/registry.db", "BLOB_URL": f"file://{folder}/registry"},
        folder,
    )
    registry.start()
    environment = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/training.db",
        "BLOB_URL": f"file://{folder}/objects",
        "REGISTRY_ADDRESS": registry.address,
        "RAY_DASHBOARD_URL": ray.dashboard_url if ray else "http://127.0.0.1:9",
        "WORKER_PYTHON": sys.executable,
        "CACHE_FOLDER": str(folder / "cache"),
        "IMPORT_ROOTS": json.dumps([str(import_root)]),
        "MAX_ARCHIVE_BYTES": str(64 * 2**20),
        "MAX_UNPACKED_BYTES": str(256 * 2**20),
        "WEIGHTS_DOWNLOAD": "false",
        "DRAIN_S": "5",
    }
    if ray:
        environment["RAY_TOKEN_FILE"] = str(ray.token_file)
    environment |= settings
    training = ServiceProcess("enxerto.training", environment, folder)
    try:
        training.start()
        yield Stack(registry, training, folder, import_root)
    finally:
        for service in (training, registry):
            if service.process is not None and service.process.poll() is None:
                service.kill(signal.SIGTERM)
