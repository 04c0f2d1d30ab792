"""Ray Serve through the dashboard's REST API: one application for each version of each deployment."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enxerto.inference.domain import Application, ApplicationState, ApplicationStatus, Device, Endpoint, Pool, Scale
from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.ray_dashboard import RayDashboard, RayRefusedError

logger = logging.getLogger(__name__)

_PATH = "/api/serve/applications/"
_SERVICER = "enxerto.inference.v1.replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server"
_REPLICA_PROGRAM = "enxerto.inference.replica.application:build"
_POOL_PROGRAM = "enxerto.inference.replica.pool:build"
_REPLICA_DEPLOYMENT = "replica"
_REPLICA_ACTOR = "SERVE_REPLICA::"
_STATES = {
    "NOT_STARTED": ApplicationState.STARTING,
    "DEPLOYING": ApplicationState.STARTING,
    # Serve heals what was up once; what never comes up is DEPLOY_FAILED.
    "UNHEALTHY": ApplicationState.STARTING,
    "RUNNING": ApplicationState.RUNNING,
    "DEPLOY_FAILED": ApplicationState.FAILED,
    "DELETING": ApplicationState.STOPPING,
}


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What the pool's replicas are started with besides."""

    memory_bytes: int
    """That their models may take."""
    wait_s: float
    """How long a call may wait for its model."""
    max_waiting: int
    """Calls that may wait for models."""


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """What every replica is started with."""

    registry_address: str
    """Where replicas fetch their files; must be reachable from them."""
    registry_certificates: Path | None
    secret_file: Path
    """Readable by the replicas at this path."""
    cache_folder: Path
    """Where replicas keep fetched files."""
    cpus: float
    """What Ray reserves for a replica."""
    gpus: float
    """GPUs that Ray reserves for a replica on GPUs."""
    threads: int
    """Threads of ONNX Runtime, and of decoding."""
    max_image_pixels: int
    max_image_bytes: int
    pool: PoolOptions
    tensorrt: bool = False
    """Whether TensorRT computes on GPUs."""


@dataclass(frozen=True, slots=True)
class ServePorts:
    """Ports of Serve's own proxy, which it starts whether it is used or not."""

    http: int
    grpc: int


class ServeCluster:
    """Declares applications, and reads how they fare and where their replicas listen."""

    def __init__(self, dashboard: RayDashboard, options: ReplicaOptions, ports: ServePorts, direct: bool) -> None:
        self._dashboard = dashboard
        self._options = options
        self._ports = ports
        self._direct = direct

    async def apply(self, applications: Sequence[Application | Pool]) -> None:
        """Declare the applications; see `ReplicaCluster.apply`."""
        body = {
            "http_options": {"host": "127.0.0.1", "port": self._ports.http},
            "grpc_options": {
                "port": self._ports.grpc,
                "grpc_servicer_functions": [_SERVICER],
                "enable_reflection": False,
            },
            "applications": [self._declaration(application) for application in applications],
        }
        await self._call("PUT", body)
        logger.info("applications declared", extra={"count": len(applications)})

    async def observe(self) -> Mapping[str, ApplicationStatus]:
        """Read every application; see `ReplicaCluster.observe`."""
        return statuses(await self._call("GET"), self._direct)

    async def _call(self, method: str, body: Any = None) -> Any:
        try:
            return await self._dashboard.call(method, _PATH, body)
        except RayRefusedError as error:
            raise UnavailableError(f"Ray Serve refused: {error}", retry_after_s=2.0) from error

    def _declaration(self, application: Application | Pool) -> dict[str, Any]:
        options = self._options
        arguments: dict[str, Any] = {
            **({} if isinstance(application, Pool) else {"model_version": str(application.version)}),
            "registry_address": options.registry_address,
            "registry_certificates": str(options.registry_certificates or ""),
            "secret_file": str(options.secret_file),
            "cache_folder": str(options.cache_folder),
            "threads": options.threads,
            "cpus": options.cpus,
            "max_image_pixels": options.max_image_pixels,
            "max_image_bytes": options.max_image_bytes,
        }
        if isinstance(application, Pool):
            pool = options.pool
            arguments |= {
                "memory_bytes": pool.memory_bytes,
                "wait_s": pool.wait_s,
                "max_waiting": pool.max_waiting,
            }
        elif application.device is Device.GPU:
            # Other arguments make Serve start the replicas anew: those on the CPU keep what they were declared with.
            arguments |= {"device": application.device.value, "gpus": options.gpus}
            if options.tensorrt:
                arguments["tensorrt"] = True
        return {
            "name": application.name,
            # Serve reports the addresses of applications with a route only.
            "route_prefix": f"/{application.name}",
            "import_path": _POOL_PROGRAM if isinstance(application, Pool) else _REPLICA_PROGRAM,
            "args": arguments,
            "deployments": [{"name": _REPLICA_DEPLOYMENT, **_size(application.scale)}],
        }


def _size(scale: Scale) -> dict[str, Any]:
    """How many replicas.

    A fixed number is declared as bounds too: to begin or to end with bounds changes what Serve takes for the version of
    the code, so that it would stop the replicas before others are up.
    """
    bounds = scale.autoscaling
    if bounds is None:
        count = scale.replicas
        return {"autoscaling_config": {"min_replicas": count, "initial_replicas": count, "max_replicas": count}}
    # Without a first number, a change of the bounds leaves as many replicas as there are.
    # Replicas that are called directly report their load themselves.
    return {
        "autoscaling_config": {
            "min_replicas": bounds.min_replicas,
            "max_replicas": bounds.max_replicas,
            "target_ongoing_requests": bounds.target_ongoing_batches,
            "upscale_delay_s": bounds.upscale_delay_s,
            "downscale_delay_s": bounds.downscale_delay_s,
        }
    }


def statuses(details: Mapping[str, Any] | None, direct: bool) -> dict[str, ApplicationStatus]:
    """Read Serve's answer.

    Args:
        details: body of `GET /api/serve/applications/`.
        direct: whether to call the replicas themselves, or Serve's proxies.
    """
    details = details or {}
    groups = [group for group in details.get("target_groups") or () if group["protocol"].lower() == "grpc"]
    result = {}
    for name, application in (details.get("applications") or {}).items():
        state = _STATES.get(application["status"], ApplicationState.STARTING)
        targets = [
            target
            for group in groups
            if group["app_name"] in (name, "")
            for target in group["targets"]
            # Serve lists its proxies for an application without replicas.
            if str(target["name"]).startswith(_REPLICA_ACTOR) is direct
        ]
        counted = _scales(application)
        endpoints = tuple(Endpoint(f"{target['ip']}:{target['port']}", name, counted) for target in targets)
        if state is ApplicationState.STOPPING:
            endpoints = ()
        running = _running(application)
        # When Serve builds an application anew, it does not list its deployment, or lists no target of it for a while.
        said = _REPLICA_DEPLOYMENT in (application.get("deployments") or {}) and not (running and not endpoints)
        known = said or state is ApplicationState.STOPPING
        result[name] = ApplicationStatus(state, endpoints, _message(application), running, known)
    return result


def _deployment(application: Mapping[str, Any]) -> Mapping[str, Any]:
    return (application.get("deployments") or {}).get(_REPLICA_DEPLOYMENT) or {}


def _scales(application: Mapping[str, Any]) -> bool:
    """Whether the number of replicas follows the load."""
    bounds = (_deployment(application).get("deployment_config") or {}).get("autoscaling_config") or {}
    return bounds.get("min_replicas") != bounds.get("max_replicas")


def _running(application: Mapping[str, Any]) -> int:
    deployment = _deployment(application)
    return sum(replica["state"] == "RUNNING" for replica in deployment.get("replicas") or ())


def _message(application: Mapping[str, Any]) -> str:
    """The sentence that matters in a traceback: a replica's own error, or the last line."""
    texts = [application.get("message") or ""]
    texts += [deployment.get("message") or "" for deployment in (application.get("deployments") or {}).values()]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    marked = [line.partition(ERROR_MARK)[2] for line in lines if ERROR_MARK in line]
    return (marked or lines or [""])[-1][:500]


ERROR_MARK = "cannot serve: "
"""What the errors of a replica's start begin with, so that they are found in Serve's message."""

__all__ = ["ERROR_MARK", "PoolOptions", "ReplicaOptions", "ServeCluster", "ServePorts", "statuses"]
