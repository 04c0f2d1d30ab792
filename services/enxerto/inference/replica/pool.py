"""The Serve application of the pool: replicas that answer for all shared deployments."""

from typing import Any

from ray import serve

from enxerto.inference.adapters.serve_cluster import ERROR_MARK
from enxerto.inference.replica.application import HostArguments, ReplicaStartError, bound
from enxerto.inference.replica.residents import ResidentLimits
from enxerto.inference.replica.shared import SharedAnswering, shared_predictors

# Calls that wait for a model must not keep those out whose models are there: the residents limit how many wait.
_MAX_ONGOING = 4096


class PoolArguments(HostArguments):
    """What the application is declared with."""

    memory_bytes: int
    wait_s: float
    max_waiting: int


class PoolReplica(SharedAnswering):
    """enxerto.inference.v1.ReplicaService, as Serve calls it, for every shared deployment."""

    def __init__(self, arguments: PoolArguments) -> None:
        residents = shared_predictors(
            arguments.fetch,
            arguments.threads,
            arguments.image_limits,
            ResidentLimits(arguments.memory_bytes, arguments.wait_s, arguments.max_waiting),
        )
        try:
            super().__init__(arguments.secret_file.read_text().strip(), residents)
        except OSError as error:
            raise ReplicaStartError(f"{ERROR_MARK}{error}") from error


def build(arguments: dict[str, Any]) -> serve.Application:
    """Make the application from its declaration; Serve calls this."""
    return bound(PoolReplica, PoolArguments.model_validate(arguments), max_ongoing=_MAX_ONGOING)
