"""How Ray tells that a worker died."""

import ray.exceptions
import ray.train

_MAX_TEXT = 300


def death_in(error: ray.train.TrainingFailedError) -> str:
    """How a worker died, in Ray's words without the cluster's own ids; empty when none did."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "health_check_failure", failure)
        if isinstance(cause, ray.exceptions.ActorUnavailableError):
            # Ray has missed the worker before it knows why, and has only an id and an address to tell.
            return "a worker cannot be reached any more: it, or its node, has died"
        if isinstance(cause, ray.exceptions.RayActorError):
            # What is indented are ids and addresses.
            lines = [line for line in str(cause).splitlines() if line and not line.startswith("\t")]
            return " ".join(lines)[:_MAX_TEXT]
    return ""
