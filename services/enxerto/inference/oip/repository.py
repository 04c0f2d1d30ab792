"""Deployments, seen as a repository of models."""

import asyncio
from collections.abc import Sequence

from enxerto.inference.domain import Deployment, State
from enxerto.inference.errors import DeploymentNotReadyError, ModelManagedElsewhereError
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.names import model_id
from enxerto.inference.service import Deployments, Predictions
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName

_POLL_S = 0.1
_NO_REPOSITORY = "must be empty: there is one repository"
_STATES = {
    State.DEPLOYING: "LOADING",
    State.READY: "READY",
    State.FAILED: "UNAVAILABLE",
    State.DELETING: "UNLOADING",
}


def check_repository(name: str, violations: Violations) -> None:
    """There is one repository, without a name."""
    if name:
        violations.add("repository_name", _NO_REPOSITORY)


def index_to_proto(
    deployments: Sequence[Deployment], predictions: Predictions, only_ready: bool
) -> pb.RepositoryIndexResponse:
    """Every deployment, or those that answer."""
    models = []
    for deployment in deployments:
        ready = deployment.state is not State.DELETING and predictions.ready(deployment.name)
        if only_ready and not ready:
            continue
        version = deployment.serving or deployment.target
        models.append(
            pb.RepositoryIndexResponse.ModelIndex(
                name=model_id(deployment.name),
                version=str(version.number) if version else "",
                state="READY" if ready else _state(deployment),
                reason=deployment.fault.message if deployment.fault else "",
            )
        )
    return pb.RepositoryIndexResponse(models=models)


def _state(deployment: Deployment) -> str:
    """READY is what answers in this process, which may not have looked since it started."""
    return "LOADING" if deployment.state is State.READY else _STATES[deployment.state]


async def until_ready(name: DeploymentName, deployments: Deployments, predictions: Predictions, limit_s: float) -> None:
    """Wait until a deployment answers.

    Raises:
        DeploymentNotFoundError: there is none.
        ModelManagedElsewhereError: its version failed, or it is being deleted: waiting does not help.
        DeploymentNotReadyError: it did not answer in time.
    """
    deadline = asyncio.get_running_loop().time() + limit_s
    while True:
        deployment = await deployments.get(name)
        if deployment.state in (State.FAILED, State.DELETING):
            why = deployment.fault.message if deployment.fault else "it is being deleted"
            raise ModelManagedElsewhereError(name, f"{name} cannot be loaded: {why}")
        if predictions.ready(name):
            return
        if asyncio.get_running_loop().time() >= deadline:
            raise DeploymentNotReadyError(f"no version of {name} answers yet", retry_after_s=2.0)
        await asyncio.sleep(_POLL_S)
