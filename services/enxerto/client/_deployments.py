"""Deployments."""

import uuid
from collections.abc import Iterator
from typing import Unpack

from enxerto.client import _converters, _results
from enxerto.client._deployment_settings import DeploymentSettings, deployment_message
from enxerto.client._errors import AlreadyExistsError, DeploymentFailedError
from enxerto.client._models import ModelCalls
from enxerto.client._watch import watch_deployment
from enxerto.inference.v1 import deployment_service_pb2


class DeploymentCalls(ModelCalls):
    """What answers."""

    def deploy(
        self,
        name: str,
        version: str,
        *,
        wait: bool = True,
        timeout_s: float = 300.0,
        **settings: Unpack[DeploymentSettings],
    ) -> _results.Deployment:
        """Serve a version under a name, or change what an existing deployment serves without failing a request.

        Args:
            name: the deployment.
            version: by number, or by an alias, which the deployment then follows.
            wait: return when the version answers, and those that have a share, instead of at once.
            timeout_s: how long to wait.
            settings: see `DeploymentSettings`: `replicas=2`, `traffic={"flowers@candidate": 10}`. What is left out
                stays as it is, or has its default in a new deployment.

        Raises:
            DeploymentFailedError: a version does not answer; the message says why.
            TypeError: a setting that does not exist.
            ValueError: a value that its setting does not take.
        """
        full = self._names.deployment(name)
        parent, _, deployment_id = full.partition("/deployments/")
        wanted, _fields = deployment_message(version, settings, self._names)
        try:
            request = deployment_service_pb2.CreateDeploymentRequest(
                parent=parent, deployment_id=deployment_id, deployment=wanted, request_id=uuid.uuid4().hex
            )
            answer = _converters.deployment(self._call(self._stubs.deployments.CreateDeployment, request))
        except AlreadyExistsError:
            answer = self._update(full, version, settings)
        return self._wait_deployment(full, wanted.model_version, timeout_s) if wait else answer

    def update_deployment(self, name: str, **settings: Unpack[DeploymentSettings]) -> _results.Deployment:
        """Change how a deployment answers without failing a request, and return it; watch it to see it done.

        Args:
            name: the deployment.
            settings: see `DeploymentSettings`; what is left out stays as it is.

        Raises:
            TypeError: a setting that does not exist.
            ValueError: a value that its setting does not take.
        """
        return self._update(self._names.deployment(name), None, settings)

    def watch_deployment(self, name: str, *, patience_s: float = 120.0) -> Iterator[_results.Deployment]:
        """The deployment as it is and after each change, until it is removed.

        The iterator survives restarts of the service.

        Args:
            name: the deployment.
            patience_s: how long the service may be away before UnavailableError is raised.
        """
        send = self._stubs.deployments.WatchDeployment
        return watch_deployment(send, self._names.deployment(name), patience_s=patience_s)

    def _update(self, full: str, version: str | None, settings: DeploymentSettings) -> _results.Deployment:
        message, fields = deployment_message(version, settings, self._names)
        message.name = full
        request = deployment_service_pb2.UpdateDeploymentRequest(deployment=message)
        request.update_mask.paths.extend(fields)
        return _converters.deployment(self._call(self._stubs.deployments.UpdateDeployment, request))

    def _wait_deployment(self, name: str, reference: str, timeout_s: float) -> _results.Deployment:
        send = self._stubs.deployments.WatchDeployment
        for deployment in watch_deployment(send, name, patience_s=timeout_s, timeout_s=timeout_s):
            version = self.version(reference).name
            if deployment.target_version != version:
                continue
            failure = deployment.error or next((one.error for one in deployment.traffic if one.error), None)
            if failure is not None:
                raise DeploymentFailedError(f"{name}: {failure.message}", code=failure.code, reason=failure.reason)
            up = deployment.state is _results.DeploymentState.READY and deployment.serving_version == version
            if up and all(
                one.serving_version and one.serving_version == one.target_version for one in deployment.traffic
            ):
                return deployment
        raise DeploymentFailedError(f"{name} was removed", code="NOT_FOUND", reason="DEPLOYMENT_REMOVED")

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
