"""Requests to the registry that tests of any part can send."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from enxerto.registry.v1 import model_pb2, model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2

PROJECT = "projects/default"
MODEL = f"{PROJECT}/models/pets"
CHUNK_BYTES = 2**20


def create_model(model_id: str = "pets", **fields: Any) -> pb.CreateModelRequest:
    """A good request for a new model."""
    model = model_pb2.Model(task=task_pb2.TASK_CLASSIFICATION, display_name="Pets")
    return pb.CreateModelRequest(**{"parent": PROJECT, "model_id": model_id, "model": model, **fields})


def upload_messages(
    data: bytes, *, sha256: str | None = None, size_bytes: int | None = None
) -> Iterator[pb.UploadBlobRequest]:
    """The messages of an upload; digest and size are the data's own unless others are given."""
    yield pb.UploadBlobRequest(
        header=pb.BlobHeader(
            parent=PROJECT,
            sha256=hashlib.sha256(data).hexdigest() if sha256 is None else sha256,
            size_bytes=len(data) if size_bytes is None else size_bytes,
        )
    )
    for start in range(0, len(data), CHUNK_BYTES):
        yield pb.UploadBlobRequest(chunk=data[start : start + CHUNK_BYTES])


async def streamed(messages: Iterator[pb.UploadBlobRequest]) -> AsyncIterator[pb.UploadBlobRequest]:
    """The same for an asyncio stub."""
    for message in messages:
        yield message


def model_version(sha256: str, *, agreement: float = 1.0) -> model_version_pb2.ModelVersion:
    """A good version with one artifact."""
    return model_version_pb2.ModelVersion(
        artifacts=[
            model_version_pb2.Artifact(
                filename="model.onnx",
                role=model_version_pb2.Artifact.ROLE_MODEL,
                sha256=sha256,
                media_type="application/octet-stream",
            )
        ],
        label_map=tensor_pb2.LabelMap(names=["cat", "dog"]),
        preprocess=tensor_pb2.PreprocessSpec(
            height=224,
            width=224,
            crop_fraction=0.875,
            interpolation="bicubic",
            mean=[0.5] * 3,
            std=[0.5] * 3,
            resize=tensor_pb2.PreprocessSpec.RESIZE_CENTER_CROP,
        ),
        inputs=[tensor_pb2.TensorSpec(name="images", datatype="FP32", shape=[-1, 3, 224, 224])],
        outputs=[tensor_pb2.TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 2])],
        metrics=[
            metric_pb2.Metric(name="accuracy", value=0.9, split="test"),
            metric_pb2.Metric(name="recall", value=0.8, split="test", class_name="dog"),
        ],
        parity=model_version_pb2.Parity(
            max_abs_difference=1e-6, agreement=agreement, sample_count=32, batch_sizes=[1, 2, 8]
        ),
        lineage=model_version_pb2.Lineage(
            snapshot=f"{PROJECT}/datasets/pets/snapshots/1",
            snapshot_digest="a" * 64,
            base_model="baseModels/efficientnet-lite0",
            weights_digest="b" * 64,
            weights_source="package",
            licence="Apache-2.0",
            training_run=f"{PROJECT}/trainingRuns/first",
        ),
        labels={"team": "vision"},
    )
