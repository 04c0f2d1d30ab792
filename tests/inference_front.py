"""The front's own server on loopback, over predictors of this process in the place of Ray."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from enxerto.inference.bootstrap import wire
from enxerto.inference.domain import DeploymentSpec
from enxerto.inference.oip import open_inference_pb2 as oip
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
from fakes.tiny_onnx import TinyDetector, TinyModel, TinyNegative, TinySegmenter
from inference_images import encode

MODELS = {"class": TinyModel(), "detect": TinyDetector(), "segment": TinySegmenter(), "style": TinyNegative()}
ALIAS = "production"
DTYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1", "BOOL": "?"}


class SettableClock:
    """A `Clock` that tests move."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class Front:
    """Its stubs, and what is behind it."""

    address: str
    vision: vision_service_pb2_grpc.VisionServiceStub
    open: GRPCInferenceServiceStub
    quality: quality_service_pb2_grpc.QualityServiceStub
    use_cases: UseCases
    store: InMemoryDeploymentStore
    registry: InMemoryModelRegistry
    replicas: InProcessReplicas
    files: InMemorySampleFiles
    clock: SettableClock
    meter: CountingMeter

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
async def running_front(folder: Path, models: Mapping[str, TinyModel] = MODELS, **changes: Any) -> AsyncIterator[Front]:
    """Serve each model by its alias as a deployment of its key's name; `changes` are settings."""
    fixed = {"replica_secret_file": "/unused", "database_url": "unused", "port": 0, "metrics_port": 0, "drain_s": 0}
    settings = InferenceSettings(**{**fixed, "home": folder, **changes})
    registry, replicas, clock = InMemoryModelRegistry(), InProcessReplicas(folder), SettableClock()
    store, files, meter = InMemoryDeploymentStore(), InMemorySampleFiles(), CountingMeter()
    use_cases = wire(
        settings,
        store=store,
        registry=registry,
        cluster=InMemoryCluster(),
        replicas=replicas,
        quality=InMemoryQualityStore(),
        sample_files=files,
        clock=clock,
        meter=meter,
    )
    for name, tiny in models.items():
        version = registry.add_tiny(1, tiny, name)
        replicas.load(version, tiny)
        registry.point(ALIAS, version)
        await use_cases.deployments.create(
            DeploymentName("default", name), DeploymentSpec(VersionReference("default", name, ALIAS), 1), ""
        )
    for _ in range(3):
        await use_cases.reconciler.tick()
    server = build_server(settings, new_registry(), use_cases)
    # As tritonclient has it: by default gRPC's clients take answers of 4 MiB.
    unlimited = [("grpc.max_receive_message_length", -1)]
    async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", unlimited) as channel:
        yield Front(
            address=f"127.0.0.1:{server.port}",
            vision=vision_service_pb2_grpc.VisionServiceStub(channel),
            open=GRPCInferenceServiceStub(channel),
            quality=quality_service_pb2_grpc.QualityServiceStub(channel),
            use_cases=use_cases,
            store=store,
            registry=registry,
            replicas=replicas,
            files=files,
            clock=clock,
            meter=meter,
        )


def deployment(name: str) -> str:
    """The full name."""
    return str(DeploymentName("default", name))


def plain(*colours: tuple[int, int, int], size: tuple[int, int] = (24, 24)) -> list[vision_pb2.Image]:
    """A picture of each colour."""
    pixels = [np.full((size[1], size[0], 3), colour, np.uint8) for colour in colours]
    return [vision_pb2.Image(content=encode(Image.fromarray(one), "PNG")) for one in pixels]
