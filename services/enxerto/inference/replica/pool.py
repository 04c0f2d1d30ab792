"""The Serve application of the pool: replicas that answer for all shared deployments."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

from enxerto.inference.adapters.model_files import fetch_model
from enxerto.inference.adapters.serve_cluster import ERROR_MARK
from enxerto.inference.replica.application import DRAIN_S, HEALTH_PERIOD_S, START_ATTEMPTS, ReplicaStartError
from enxerto.inference.replica.residents import ResidentLimits
from enxerto.inference.replica.shared import SharedAnswering, shared_predictors
from enxerto.vision.images import ImageLimits

# Calls that wait for a model must not keep those out whose models are there: the residents limit how many wait.
_MAX_ONGOING = 4096


class PoolArguments(BaseModel):
    """What the application is declared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    registry_address: str
    registry_certificates: str
    secret_file: Path
    cache_folder: Path
    threads: int
    cpus: float
    max_image_pixels: int
    max_image_bytes: int
    memory_bytes: int
    wait_s: float
    max_waiting: int


class PoolReplica(SharedAnswering):
    """enxerto.inference.v1.ReplicaService, as Serve calls it, for every shared deployment."""

    def __init__(self, arguments: PoolArguments) -> None:
        certificates = Path(arguments.registry_certificates) if arguments.registry_certificates else None
        residents = shared_predictors(
            lambda name: fetch_model(name, arguments.registry_address, certificates, arguments.cache_folder),
            arguments.threads,
            ImageLimits(arguments.max_image_bytes, arguments.max_image_pixels),
            ResidentLimits(arguments.memory_bytes, arguments.wait_s, arguments.max_waiting),
        )
        try:
            super().__init__(arguments.secret_file.read_text().strip(), residents)
        except OSError as error:
            raise ReplicaStartError(f"{ERROR_MARK}{error}") from error


def build(arguments: dict[str, Any]) -> serve.Application:
    """Make the application from its declaration; Serve calls this."""
    parsed = PoolArguments.model_validate(arguments)
    deployment = serve.deployment(
        name="replica",
        ray_actor_options={"num_cpus": parsed.cpus},
        max_ongoing_requests=_MAX_ONGOING,
        max_constructor_retry_count=START_ATTEMPTS,
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
    )(PoolReplica)
    application: serve.Application = deployment.bind(parsed)
    return application
