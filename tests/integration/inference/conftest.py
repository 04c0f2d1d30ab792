"""A deployment of a tiny model on the session's platform."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from enxerto.inference.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    vision_pb2,
    vision_service_pb2,
    vision_service_pb2_grpc,
)
from fakes.tiny_onnx import PROJECT, RegistryWriter, TinyModel
from platforms import Platform

READY_S = 150.0


class Front:
    """The inference service's typed API."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, [("grpc.enable_retries", 0)])
        self.deployments = deployment_service_pb2_grpc.DeploymentServiceStub(self.channel)
        self.vision = vision_service_pb2_grpc.VisionServiceStub(self.channel)

    def create(self, deployment_id: str, model_version: str, **fields: Any) -> deployment_pb2.Deployment:
        return self.deployments.CreateDeployment(
            deployment_service_pb2.CreateDeploymentRequest(
                parent=PROJECT,
                deployment_id=deployment_id,
                deployment=deployment_pb2.Deployment(model_version=model_version, **fields),
            ),
            timeout=30,
        )

    def get(self, name: str) -> deployment_pb2.Deployment:
        return self.deployments.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=name), timeout=10)

    def delete(self, name: str) -> None:
        self.deployments.DeleteDeployment(deployment_service_pb2.DeleteDeploymentRequest(name=name), timeout=10)

    def wait(
        self, name: str, until: Callable[[deployment_pb2.Deployment], bool], timeout_s: float = READY_S
    ) -> deployment_pb2.Deployment:
        deadline = time.monotonic() + timeout_s
        while True:
            deployment = self.get(name)
            if until(deployment):
                return deployment
            assert time.monotonic() < deadline, f"still {deployment}"
            time.sleep(0.1)

    def ready(self, name: str) -> deployment_pb2.Deployment:
        return self.wait(name, lambda deployment: deployment.state == deployment_pb2.Deployment.STATE_READY)

    def classify(
        self, name: str, *images: bytes, top_k: int = 0, timeout_s: float = 30.0
    ) -> vision_service_pb2.ClassifyResponse:
        request = vision_service_pb2.ClassifyRequest(
            deployment=name, images=[vision_pb2.Image(content=image) for image in images], top_k=top_k
        )
        return self.vision.Classify(request, timeout=timeout_s)


@dataclass
class Served:
    """A deployment that follows the alias `production` of a model with one version."""

    platform: Platform
    registry: RegistryWriter
    front: Front
    tiny: TinyModel
    model: str
    first: str
    deployment: str


@pytest.fixture(scope="session")
def served(platform: Platform) -> Iterator[Served]:
    registry = RegistryWriter(platform.address("registry"))
    front = Front(platform.address("inference"))
    tiny = TinyModel()
    model = registry.create_model("tiny")
    first = registry.add_version(model, tiny)
    registry.point(model, "production", first)
    deployment = front.create("tiny", f"{model}/versions/production").name
    front.ready(deployment)
    yield Served(platform, registry, front, tiny, model, first, deployment)
    with contextlib.suppress(grpc.RpcError):  # the platform ends after this in any case
        front.delete(deployment)
    front.channel.close()
    registry.close()
