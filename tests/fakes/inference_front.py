"""A whole front on loopback, with predictors of this process in the place of Ray."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from enxerto.inference.bootstrap import wire
from enxerto.inference.domain import DeploymentSpec
from enxerto.inference.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from enxerto.inference.server import UseCases, build_server
from enxerto.inference.settings import InferenceSettings
from enxerto.inference.v1 import quality_service_pb2_grpc, vision_pb2, vision_service_pb2_grpc
from enxerto.kernel.names import DeploymentName, VersionReference
from enxerto.runtime.metrics import new_registry
from fakes.inference_world import (
    CountingMeter,
    InMemoryCluster,
    InMemoryDeploymentStore,
    InMemoryModelRegistry,
    InProcessReplicas,
)
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles
from fakes.tiny_onnx import TinyModel
from inference_images import encode


class SettableClock:
    """A `Clock` that tests move."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class Front:
    """Its stubs, and what is behind it."""

    vision: vision_service_pb2_grpc.VisionServiceStub
    open: GRPCInferenceServiceStub
    use_cases: UseCases
    registry: InMemoryModelRegistry
    replicas: InProcessReplicas
    clock: SettableClock
    quality: quality_service_pb2_grpc.QualityServiceStub
    files: InMemorySampleFiles
    meter: CountingMeter
    address: str


@asynccontextmanager
async def running_front(folder: Path, models: Mapping[str, TinyModel], **settings: Any) -> AsyncIterator[Front]:
    """Serve a deployment of each model, under its key."""
    configured = InferenceSettings(
        replica_secret_file="/unused",
        database_url="unused",
        home=folder,
        port=0,
        metrics_port=0,
        drain_s=0,
        **settings,
    )
    registry, replicas, clock = InMemoryModelRegistry(), InProcessReplicas(folder), SettableClock()
    quality, files, meter = InMemoryQualityStore(), InMemorySampleFiles(), CountingMeter()
    use_cases = wire(
        configured,
        store=InMemoryDeploymentStore(),
        registry=registry,
        cluster=InMemoryCluster(),
        replicas=replicas,
        quality=quality,
        sample_files=files,
        clock=clock,
        meter=meter,
    )
    for name, tiny in models.items():
        replicas.load(registry.add_tiny(1, tiny, name), tiny)
        await use_cases.deployments.create(
            DeploymentName("default", name), DeploymentSpec(VersionReference("default", name, "1"), 1), ""
        )
    for _ in range(3):
        await use_cases.reconciler.tick()
    server = build_server(configured, new_registry(), use_cases)
    async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Front(
            vision_service_pb2_grpc.VisionServiceStub(channel),
            GRPCInferenceServiceStub(channel),
            use_cases,
            registry,
            replicas,
            clock,
            quality_service_pb2_grpc.QualityServiceStub(channel),
            files,
            meter,
            f"127.0.0.1:{server.port}",
        )


def deployment(name: str) -> str:
    """The full name."""
    return str(DeploymentName("default", name))


def plain(*colours: tuple[int, int, int], size: tuple[int, int] = (24, 24)) -> list[vision_pb2.Image]:
    """A picture of each colour."""
    pixels = [np.full((size[1], size[0], 3), colour, np.uint8) for colour in colours]
    return [vision_pb2.Image(content=encode(Image.fromarray(one), "PNG")) for one in pixels]
