"""How each process is started: command line and environment."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from enxerto.local.cpus import replica_threads
from enxerto.local.layout import Layout
from enxerto.local.ports import HOST, Ports
from enxerto.local.processes import INSTANCE_VARIABLE

_OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Command:
    """One process to start."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands of one platform."""

    layout: Layout
    ports: Ports
    instance: str
    cpus: int
    """What Ray may hand out. Bookkeeping, not cores: a replica and a run of two workers fit on a laptop."""

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        # A RAY_ADDRESS or an ENXERTO_ setting of the shell would pull our processes to somebody else's cluster.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ENXERTO_"))}
        return {
            **inherited,
            "ENXERTO_HOME": str(self.layout.home),
            INSTANCE_VARIABLE: self.instance,
            "PYTHONUNBUFFERED": "1",
            **own,
        }

    @property
    def dashboard_url(self) -> str:
        """Ray's REST API."""
        port = self.ports["Ray's dashboard"]
        return f"http://{HOST}:{port}"

    def ray(self) -> Command:
        """Ray's head, in the foreground."""
        ports = self.ports
        flags = {
            "node-ip-address": HOST,
            "port": ports["Ray's control store"],
            "dashboard-host": HOST,
            "dashboard-port": ports["Ray's dashboard"],
            "metrics-export-port": ports["Ray's metrics"],
            "dashboard-agent-listen-port": ports["Ray's dashboard agent"],
            "dashboard-agent-grpc-port": ports["Ray's dashboard agent (gRPC)"],
            "runtime-env-agent-port": ports["Ray's runtime environment agent"],
            "node-manager-port": ports["Ray's node manager"],
            "object-manager-port": ports["Ray's object manager"],
            # Any free port: two platforms on one machine must not meet.
            "min-worker-port": 0,
            "max-worker-port": 0,
            "ray-client-server-port": ports["Ray's client server"],
            "num-cpus": self.cpus,
            "object-store-memory": _OBJECT_STORE_BYTES,
            "temp-dir": self.layout.ray_folder,
            # It only copies what workers write to their drivers, and ours do not listen.
            "include-log-monitor": "false",
        }
        arguments = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        arguments += [f"--{name}={value}" for name, value in flags.items()]
        grpc_first, grpc_last = ports.replica_grpc
        http_first, http_last = ports.replica_http
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.layout.ray_token),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's agents would write their titles over the environment, and with it over the platform's mark.
            "SPT_NOENV": "1",
            # By default any other process goes before a replica, the callers' own among them.
            "RAY_worker_niceness": "0",
            # The training controller then aborts cleanly and its workers are free at once.
            "RAY_JOB_STOP_SIGNAL": "SIGINT",
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc_first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc_last),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http_first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http_last),
            # The front removes an application only after its own calls to it have ended.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_PORT_QUARANTINE_S": "5",
            # What Serve does ten times a second whether there is work or not; docs/performance.md has its cost.
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
            "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
            # A replica only awaits: a thread of its own for that would be two more hops for every batch.
            "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        }
        return Command(tuple(arguments), self._environment(environment))

    def service(self, name: str) -> Command:
        """The registry, the training or the inference service."""
        own = {"registry": self._registry, "training": self._training, "inference": self._inference}[name]()
        listening = {
            "HOST": HOST,
            "PORT": self.ports[name],
            "METRICS_HOST": HOST,
            "METRICS_PORT": self.ports[f"{name} metrics"],
            "READY_FILE": self.layout.ready_file(name),
        }
        prefix = f"ENXERTO_{name.upper()}_"
        settings = {f"{prefix}{key}": str(value) for key, value in {**listening, **own}.items()}
        return Command((sys.executable, "-m", f"enxerto.{name}"), self._environment(settings))

    def _database(self, name: str) -> str:
        return f"sqlite+aiosqlite:///{self.layout.home / name / f'{name}.db'}"

    def _registry(self) -> dict[str, object]:
        return {"DATABASE_URL": self._database("registry"), "BLOB_URL": f"file://{self.layout.home}/registry/objects"}

    def _training(self) -> dict[str, object]:
        home = self.layout.home
        return {
            "DATABASE_URL": self._database("training"),
            "BLOB_URL": f"file://{home}/training/objects",
            "REGISTRY_ADDRESS": f"{HOST}:{self.ports['registry']}",
            "RAY_DASHBOARD_URL": self.dashboard_url,
            "RAY_TOKEN_FILE": self.layout.ray_token,
            "WORKER_PYTHON": sys.executable,
            "CACHE_FOLDER": home / "training" / "cache",
            "WEIGHTS_FOLDER": home / "weights",
        }

    def _inference(self) -> dict[str, object]:
        return {
            "DATABASE_URL": self._database("inference"),
            "REGISTRY_ADDRESS": f"{HOST}:{self.ports['registry']}",
            "RAY_DASHBOARD_URL": self.dashboard_url,
            "RAY_TOKEN_FILE": self.layout.ray_token,
            "REPLICA_SECRET_FILE": self.layout.replica_secret,
            "SERVE_HTTP_PORT": self.ports["Serve's HTTP proxy"],
            "SERVE_GRPC_PORT": self.ports["Serve's gRPC proxy"],
            "MODEL_CACHE_FOLDER": self.layout.home / "inference" / "models",
            "REPLICA_THREADS": replica_threads(),
        }
