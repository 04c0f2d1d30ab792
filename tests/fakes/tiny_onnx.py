"""Classifiers of a few hundred bytes, as files and as registered versions, so that serving is tested without torch."""

import hashlib
import json
from dataclasses import dataclass, field

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2, registry_service_pb2_grpc
from enxerto.type.v1 import task_pb2, tensor_pb2
from registry_requests import upload_messages

LABELS = ("black", "red", "green", "blue")
SIZE = 16
PROJECT = "projects/default"


@dataclass(frozen=True)
class TinyModel:
    """Mean colour, a linear layer and softmax; another seed is another linear layer."""

    seed: int = 0
    labels: tuple[str, ...] = LABELS
    size: int = SIZE
    data: bytes = field(init=False)

    def __post_init__(self) -> None:
        weights = np.random.default_rng(self.seed).normal(size=(3, len(self.labels))).astype(np.float32)
        nodes = [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, self.size, self.size])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(self.labels)])],
            [numpy_helper.from_array(weights, "weights")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        preprocess = {
            "height": self.size,
            "width": self.size,
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        }
        metadata = {
            "enxerto.labels": json.dumps(self.labels),
            "enxerto.preprocess": json.dumps(preprocess),
            "enxerto.task": json.dumps("CLASSIFICATION"),
            "enxerto.provenance": json.dumps({"seed": self.seed}),
        }
        helper.set_model_props(model, metadata)
        object.__setattr__(self, "data", model.SerializeToString())

    def version(self, sha256: str, *, agreement: float = 1.0) -> model_version_pb2.ModelVersion:
        """What the registry is told of it."""
        return model_version_pb2.ModelVersion(
            artifacts=[
                model_version_pb2.Artifact(
                    filename="model.onnx", role=model_version_pb2.Artifact.ROLE_MODEL, sha256=sha256
                )
            ],
            label_map=tensor_pb2.LabelMap(names=self.labels),
            preprocess=tensor_pb2.PreprocessSpec(
                height=self.size,
                width=self.size,
                crop_fraction=1.0,
                interpolation="bilinear",
                mean=[0.0] * 3,
                std=[1.0] * 3,
            ),
            inputs=[tensor_pb2.TensorSpec(name="images", datatype="FP32", shape=[-1, 3, self.size, self.size])],
            outputs=[tensor_pb2.TensorSpec(name="probabilities", datatype="FP32", shape=[-1, len(self.labels)])],
            parity=model_version_pb2.Parity(agreement=agreement, sample_count=8, batch_sizes=[1, 2, 8]),
            lineage=model_version_pb2.Lineage(base_model="baseModels/resnet18", licence="Apache-2.0"),
        )


class RegistryWriter:
    """Puts models into a registry that runs."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def create_model(self, model_id: str) -> str:
        """A new model's name."""
        model = model_pb2.Model(task=task_pb2.TASK_CLASSIFICATION)
        request = registry_service_pb2.CreateModelRequest(parent=PROJECT, model_id=model_id, model=model)
        name: str = self.stub.CreateModel(request, timeout=10).name
        return name

    def add_version(self, model: str, tiny: TinyModel, *, data: bytes | None = None, agreement: float = 1.0) -> str:
        """A new version's name; `data` takes the place of the graph's own bytes."""
        content = tiny.data if data is None else data
        self.stub.UploadBlob(upload_messages(content), timeout=30)
        version = tiny.version(hashlib.sha256(content).hexdigest(), agreement=agreement)
        request = registry_service_pb2.CreateModelVersionRequest(parent=model, model_version=version)
        name: str = self.stub.CreateModelVersion(request, timeout=10).name
        return name

    def point(self, model: str, alias: str, version: str) -> None:
        """Move an alias."""
        request = registry_service_pb2.SetAliasRequest(model=model, alias=alias, version=version)
        self.stub.SetAlias(request, timeout=10)
