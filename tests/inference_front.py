"""The front's own server over predictors of this process in the place of Ray, with a deployment of every task."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from enxerto.inference.bootstrap import wire
from enxerto.inference.domain import DeploymentSpec
from enxerto.inference.oip import open_inference_pb2 as oip
from enxerto.inference.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from enxerto.inference.server import UseCases, build_server
from enxerto.inference.settings import InferenceSettings
from enxerto.inference.v1 import vision_service_pb2_grpc
from enxerto.kernel.names import DeploymentName, VersionReference
from enxerto.runtime.metrics import new_registry
from enxerto.runtime.server import GrpcServer
from fakes.inference_world import (
    CountingMeter,
    InMemoryCluster,
    InMemoryDeploymentStore,
    InMemoryModelRegistry,
    InProcessReplicas,
)
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles
from fakes.tiny_onnx import TinyDetector, TinyModel, TinyNegative, TinySegmenter

MODELS = {"class": TinyModel(), "detect": TinyDetector(), "segment": TinySegmenter(), "style": TinyNegative()}
ALIAS = "production"
DTYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1", "BOOL": "?"}


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


World = tuple[InMemoryModelRegistry, InProcessReplicas, CountingMeter]


class Front:
    """Stubs of a front that serves every task, and what it is made of."""

    def __init__(self, server: GrpcServer, channel: grpc.aio.Channel, use_cases: UseCases, world: World) -> None:
        self.address = f"127.0.0.1:{server.port}"
        self.vision = vision_service_pb2_grpc.VisionServiceStub(channel)
        self.open = GRPCInferenceServiceStub(channel)
        self.use_cases = use_cases
        self.registry, self.replicas, self.meter = world

    async def infer(self, model: str, tensor: np.ndarray | list[bytes], *outputs: str) -> dict[str, np.ndarray]:
        """Raw contents in and out."""
        answer = await self.open.ModelInfer(infer_request(model, tensor, outputs=[{"name": name} for name in outputs]))
        return {
            output.name: np.frombuffer(content, DTYPES[output.datatype]).reshape(output.shape)
            for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }


def infer_request(model: str, tensor: np.ndarray | list[bytes], **fields: Any) -> oip.ModelInferRequest:
    """A request with raw contents: pixels in their own datatype, or encoded images."""
    encoded = isinstance(tensor, list)
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in tensor) if encoded else tensor.tobytes()
    datatype = "BYTES" if encoded else {"float32": "FP32", "float16": "FP16", "uint8": "UINT8"}[tensor.dtype.name]
    return oip.ModelInferRequest(
        model_name=model,
        inputs=[{"name": "images", "datatype": datatype, "shape": [len(tensor)] if encoded else tensor.shape}],
        raw_input_contents=[raw],
        **fields,
    )


@contextlib.asynccontextmanager
async def running_front(folder: Path, **changes: Any) -> AsyncIterator[Front]:
    """Serve `MODELS`, each by its alias; `changes` are settings."""
    fixed = {"replica_secret_file": "/unused", "database_url": "unused", "port": 0, "metrics_port": 0, "drain_s": 0}
    settings = InferenceSettings(**{**fixed, "home": folder, **changes})
    registry, replicas, meter = InMemoryModelRegistry(), InProcessReplicas(folder), CountingMeter()
    use_cases = wire(
        settings,
        store=InMemoryDeploymentStore(),
        registry=registry,
        cluster=InMemoryCluster(),
        replicas=replicas,
        quality=InMemoryQualityStore(),
        sample_files=InMemorySampleFiles(),
        clock=FixedClock(),
        meter=meter,
    )
    for name, tiny in MODELS.items():
        version = registry.add_tiny(1, tiny, name)
        replicas.load(version, tiny)
        registry.point(ALIAS, version)
        await use_cases.deployments.create(
            DeploymentName("default", name), DeploymentSpec(VersionReference("default", name, ALIAS), 1), ""
        )
    for _ in range(3):
        await use_cases.reconciler.tick()
    server = build_server(settings, new_registry(), use_cases)
    async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Front(server, channel, use_cases, (registry, replicas, meter))
