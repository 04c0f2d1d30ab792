"""Deployments."""

import uuid
from collections.abc import Iterator

from enxerto.client import _converters, _results
from enxerto.client._errors import AlreadyExistsError, DeploymentFailedError
from enxerto.client._models import ModelCalls
from enxerto.client._waiting import poll
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2


class DeploymentCalls(ModelCalls):
    """What answers."""

    def deploy(
        self, name: str, version: str, *, replicas: int = 1, wait: bool = True, timeout_s: float = 300.0
    ) -> _results.Deployment:
        """Serve a version under a name, or change what an existing deployment serves without failing a request.

        Args:
            name: the deployment.
            version: by number, or by an alias, which the deployment then follows.
            replicas: processes that share the requests.
            wait: return when the version answers, instead of at once.
            timeout_s: how long to wait.

        Raises:
            DeploymentFailedError: the version does not answer; the message says why.
        """
        full, reference = self._names.deployment(name), self._names.version(version)
        parent, _, deployment_id = full.partition("/deployments/")
        wanted = deployment_pb2.Deployment(model_version=reference, replicas=replicas)
        try:
            request = deployment_service_pb2.CreateDeploymentRequest(
                parent=parent, deployment_id=deployment_id, deployment=wanted, request_id=uuid.uuid4().hex
            )
            answer = self._call(self._stubs.deployments.CreateDeployment, request)
        except AlreadyExistsError:
            wanted.name = full
            update = deployment_service_pb2.UpdateDeploymentRequest(deployment=wanted)
            update.update_mask.paths.extend(["model_version", "replicas"])
            answer = self._call(self._stubs.deployments.UpdateDeployment, update)
        return self._wait_deployment(full, reference, timeout_s) if wait else _converters.deployment(answer)

    def _wait_deployment(self, name: str, reference: str, timeout_s: float) -> _results.Deployment:
        state = _results.DeploymentState

        def look() -> _results.Deployment | None:
            deployment, version = self.deployment(name), self.version(reference).name
            if deployment.target_version != version:
                return None
            answers = deployment.state is state.READY and deployment.serving_version == version
            return deployment if answers or deployment.error or deployment.state is state.FAILED else None

        deployment = poll(look, f"deployment of {name}", timeout_s)
        if failure := deployment.error:
            raise DeploymentFailedError(f"{name}: {failure.message}", code=failure.code, reason=failure.reason)
        return deployment

    def deployment(self, name: str) -> _results.Deployment:
        """Read a deployment."""
        request = deployment_service_pb2.GetDeploymentRequest(name=self._names.deployment(name))
        return _converters.deployment(self._call(self._stubs.deployments.GetDeployment, request))

    def deployments(self, limit: int | None = None) -> Iterator[_results.Deployment]:
        """The project's deployments, by name."""
        request = deployment_service_pb2.ListDeploymentsRequest(parent=self._names.project)
        pages = self._pages(self._stubs.deployments.ListDeployments, request, "deployments", limit)
        return map(_converters.deployment, pages)

    def undeploy(self, name: str) -> None:
        """Drain and remove a deployment."""
        request = deployment_service_pb2.DeleteDeploymentRequest(name=self._names.deployment(name))
        self._call(self._stubs.deployments.DeleteDeployment, request)
