"""Networks of a few hundred bytes for every task, as files and as registered versions: serving is tested without torch.

What they say follows from the colours of a picture, so that a test knows where the answer must lie.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper, parser

from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2, registry_service_pb2_grpc
from enxerto.type.v1 import task_pb2, tensor_pb2
from enxerto.vision.contracts import CONTRACTS, OPTIONAL
from enxerto.vision.specs import PreprocessSpec, Resize, Task, TensorSpec
from registry_requests import upload_messages

LABELS = ("black", "red", "green", "blue")
SIZE = 16
PROJECT = "projects/default"

_DETECTOR = """
<ir_version: 9, opset_import: ["" : 17]>
tiny (float[N,3,H,W] images) => (float[N,100,4] boxes, float[N,100] scores, int64[N,100] classes, bool[N,100] accepted)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4},
 int64 scalar_zero = {0}, int64 scalar_one = {1}, float half = {0.5}, float nothing = {0.0},
 float[2] certainty = {0.9, 0.4}, int64[2] kinds = {0, 1}, int64[1] none = {-1}, float[1] wide = {9999.0},
 float[1] accepted_from = {0.5}, float[1] one_float = {1.0},
 int64[6] pad_boxes = {0, 0, 0, 0, 98, 0}, int64[4] pad_rows = {0, 0, 0, 98}, int64 minus_one = {-1}>
{
  shape = Shape (images)
  h = Slice (shape, two, three)
  w = Slice (shape, three, four)
  h_scalar = Squeeze (h)
  w_scalar = Squeeze (w)
  rows = Range (scalar_zero, h_scalar, scalar_one)
  columns = Range (scalar_zero, w_scalar, scalar_one)
  rows_float = Cast <to = 1> (rows)
  columns_float = Cast <to = 1> (columns)
  red = Slice (images, zero, one, one)
  green = Slice (images, one, two, one)
  blue = Slice (images, two, three, one)
  red_only = Sub (red, blue)
  blue_only = Sub (blue, red)
  amounts = Concat <axis = 1> (red_only, blue_only)
  inside = Greater (amounts, half)
  inside_float = Cast <to = 1> (inside)
  by_row = ReduceMax <axes = [3], keepdims = 0> (inside_float)
  by_column = ReduceMax <axes = [2], keepdims = 0> (inside_float)
  row_in = Greater (by_row, half)
  column_in = Greater (by_column, half)
  rows_after = Add (rows_float, one_float)
  columns_after = Add (columns_float, one_float)
  top_all = Where (row_in, rows_float, wide)
  left_all = Where (column_in, columns_float, wide)
  bottom_all = Where (row_in, rows_after, nothing)
  right_all = Where (column_in, columns_after, nothing)
  top = ReduceMin <axes = [2], keepdims = 1> (top_all)
  left = ReduceMin <axes = [2], keepdims = 1> (left_all)
  bottom = ReduceMax <axes = [2], keepdims = 1> (bottom_all)
  right = ReduceMax <axes = [2], keepdims = 1> (right_all)
  found_boxes = Concat <axis = 2> (left, top, right, bottom)
  there_float = ReduceMax <axes = [2], keepdims = 0> (by_row)
  found_scores = Mul (there_float, certainty)
  there = Greater (there_float, half)
  found_classes = Where (there, kinds, none)
  boxes = Pad (found_boxes, pad_boxes, nothing)
  scores = Pad (found_scores, pad_rows, nothing)
  classes = Pad (found_classes, pad_rows, minus_one)
  accepted = GreaterOrEqual (scores, accepted_from)
}
"""

_SEGMENTER = """
<ir_version: 9, opset_import: ["" : 17]>
tiny (float[N,3,H,W] images) => (uint8[N,H,W] classes, float[N] confidence)
<int64[1] zero = {0}, int64[1] one = {1}, float nothing = {0.0}, float bias = {0.4}>
{
  red = Slice (images, zero, one, one)
  flat = Mul (red, nothing)
  black = Add (flat, bias)
  amounts = Concat <axis = 1> (black, images)
  indices = ArgMax <axis = 1, keepdims = 0> (amounts)
  classes = Cast <to = 2> (indices)
  most = ReduceMax <axes = [1], keepdims = 0> (amounts)
  confidence = ReduceMean <axes = [1, 2], keepdims = 0> (most)
}
"""

_NEGATIVE = """
<ir_version: 9, opset_import: ["" : 17]>
tiny (float[N,3,H,W] images) => (float[N,3,H,W] pictures)
<float whole = {1.0}>
{
  pictures = Sub (whole, images)
}
"""


@dataclass(frozen=True)
class TinyModel:
    """Mean colour, a linear layer and softmax; another seed is another linear layer."""

    task: ClassVar[Task] = Task.CLASSIFICATION

    seed: int = 0
    labels: tuple[str, ...] = LABELS
    size: int = SIZE
    resize: Resize = Resize.CENTER_CROP
    embeds: bool = False
    """Whether the graph gives the mean colour as its embedding."""
    copies: int = 1
    """Of the layer's weights, whose mean answers: makes the model take memory, 12 bytes for each label and copy."""
    data: bytes = field(init=False)

    def __post_init__(self) -> None:
        model = self._graph()
        if self.resize is not Resize.FIT:
            for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (self.size,) * 2, strict=True):
                axis.dim_value = size
        metadata = {
            "enxerto.labels": json.dumps(self.labels),
            "enxerto.preprocess": json.dumps(self.preprocess.to_json()),
            "enxerto.task": json.dumps(self.task.value),
            "enxerto.provenance": json.dumps({"seed": self.seed}),
        }
        helper.set_model_props(model, metadata)
        object.__setattr__(self, "data", model.SerializeToString())

    def _graph(self):
        weights = np.random.default_rng(self.seed).normal(size=(3, len(self.labels))).astype(np.float32)
        features = "embedding" if self.embeds else "flat"
        nodes = [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node("Flatten", ["mean"], [features]),
            *self._layer(features),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(self.labels)]),
                *([helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3])] if self.embeds else []),
            ],
            [
                numpy_helper.from_array(weights.repeat(self.copies, axis=1), "weights"),
                *([numpy_helper.from_array(np.array([0, len(self.labels), self.copies]), "apart")] * (self.copies > 1)),
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def _layer(self, features: str):
        if self.copies == 1:
            return [helper.make_node("MatMul", [features, "weights"], ["logits"])]
        return [
            helper.make_node("MatMul", [features, "weights"], ["every"]),
            helper.make_node("Reshape", ["every", "apart"], ["copies"]),
            helper.make_node("ReduceMean", ["copies"], ["logits"], axes=[2], keepdims=0),
        ]

    @property
    def preprocess(self) -> PreprocessSpec:
        """How pictures go in."""
        return PreprocessSpec(self.size, self.size, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3, self.resize)

    def version(self, sha256: str, *, agreement: float = 1.0) -> model_version_pb2.ModelVersion:
        """What the registry is told of it."""
        side = -1 if self.resize is Resize.FIT else self.size
        outputs = [
            tensor_pb2.TensorSpec(name=one.name, datatype=one.datatype, shape=[-1, *one.row])
            for one in CONTRACTS[self.task]
        ]
        if self.embeds:
            (embedding,) = OPTIONAL[self.task]
            outputs.append(tensor_pb2.TensorSpec(name=embedding.name, datatype=embedding.datatype, shape=[-1, 3]))
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
                resize=tensor_pb2.PreprocessSpec.Resize.Value(f"RESIZE_{self.resize.value}"),
            ),
            inputs=[tensor_pb2.TensorSpec(name="images", datatype="FP32", shape=[-1, 3, side, side])],
            outputs=outputs,
            parity=model_version_pb2.Parity(agreement=agreement, sample_count=8, batch_sizes=[1, 2, 8]),
            lineage=model_version_pb2.Lineage(base_model="baseModels/resnet18", licence="Apache-2.0"),
        )


@dataclass(frozen=True)
class TinyDetector(TinyModel):
    """The box around everything red (score 0.9, accepted) and the one around everything blue (score 0.4, not)."""

    task: ClassVar[Task] = Task.DETECTION

    labels: tuple[str, ...] = ("red", "blue")
    size: int = 64
    resize: Resize = Resize.LETTERBOX

    def _graph(self):
        return parser.parse_model(_DETECTOR)


@dataclass(frozen=True)
class TinySegmenter(TinyModel):
    """Each pixel's strongest colour, or black where none reaches 0.4; the confidence is the mean of that strength."""

    task: ClassVar[Task] = Task.SEGMENTATION

    size: int = 64
    resize: Resize = Resize.LETTERBOX

    def _graph(self):
        return parser.parse_model(_SEGMENTER)


@dataclass(frozen=True)
class TinyNegative(TinyModel):
    """Paints the negative of a picture, of any size up to its own."""

    task: ClassVar[Task] = Task.STYLE

    labels: tuple[str, ...] = ("content", "style")
    size: int = 64
    resize: Resize = Resize.FIT

    def _graph(self):
        return parser.parse_model(_NEGATIVE)


class RegistryWriter:
    """Puts models into a registry that runs."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def create_model(self, model_id: str, task: Task = Task.CLASSIFICATION) -> str:
        """A new model's name."""
        model = model_pb2.Model(task=task_pb2.Task.Value(f"TASK_{task.value}"))
        request = registry_service_pb2.CreateModelRequest(parent=PROJECT, model_id=model_id, model=model)
        name: str = self.stub.CreateModel(request, timeout=10).name
        return name

    def add_version(
        self,
        model: str,
        tiny: TinyModel,
        *,
        data: bytes | None = None,
        agreement: float = 1.0,
        outputs: Sequence[TensorSpec] = (),
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> str:
        """A new version's name; `data` and its `outputs` take the place of the graph's own, `files` lie beside it."""
        content = tiny.data if data is None else data
        self.stub.UploadBlob(upload_messages(content), timeout=30)
        version = tiny.version(hashlib.sha256(content).hexdigest(), agreement=agreement)
        if outputs:
            del version.outputs[:]
            version.outputs.extend(
                tensor_pb2.TensorSpec(name=one.name, datatype=one.datatype, shape=one.shape) for one in outputs
            )
        for filename, beside in files.items():
            self.stub.UploadBlob(upload_messages(beside), timeout=30)
            digest = hashlib.sha256(beside).hexdigest()
            version.artifacts.add(filename=filename, role=model_version_pb2.Artifact.ROLE_OTHER, sha256=digest)
        request = registry_service_pb2.CreateModelVersionRequest(parent=model, model_version=version)
        name: str = self.stub.CreateModelVersion(request, timeout=10).name
        return name

    def point(self, model: str, alias: str, version: str) -> None:
        """Move an alias."""
        request = registry_service_pb2.SetAliasRequest(model=model, alias=alias, version=version)
        self.stub.SetAlias(request, timeout=10)
