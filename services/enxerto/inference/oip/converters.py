"""Between the Open Inference Protocol and the domain; gathers field violations."""

from dataclasses import dataclass, replace

import numpy as np

from enxerto.inference.domain import AnswerForm, Payload, PayloadKind, ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.tensors import TensorError, check_floats, parse_bytes
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, is_id, is_number
from enxerto.vision.contracts import EMBEDDING, MAX_DETECTIONS
from enxerto.vision.specs import FIT_MULTIPLE, Task, TensorSpec

PLATFORM = "onnxruntime_onnx"
SERVER_NAME = "enxerto"
DEFAULT_PROJECT = "default"

_TYPED = ("bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Which model a request means."""

    name: DeploymentName
    number: int | None
    """The version asked for, if any."""


def model_key(name: str, version: str, name_field: str, version_field: str) -> ModelKey:
    """Read a model name: a deployment's id in the project `default`, or its full name."""
    violations = Violations()
    deployment = DeploymentName(DEFAULT_PROJECT, name) if is_id(name) else DeploymentName.try_parse(name)
    if deployment is None:
        violations.add(name_field, f"must be the id of a deployment, or {DeploymentName.template()}")
    if version and not is_number(version):
        violations.add(version_field, "must be the number of a version, or empty")
    violations.raise_if_any()
    assert deployment is not None
    return ModelKey(deployment, int(version) if version else None)


def metadata_to_proto(name: str, version: ServableVersion) -> pb.ModelMetadataResponse:
    """What the model takes: tensors, or encoded images under the same name; and what it gives."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    rows, columns = (-1, -1) if version.any_size else (version.height, version.width)
    return pb.ModelMetadataResponse(
        name=name,
        versions=[str(version.name.number)],
        platform=PLATFORM,
        inputs=[
            tensor(name=version.input_name, datatype="FP32", shape=[-1, 3, rows, columns]),
            tensor(name=version.input_name, datatype="BYTES", shape=[-1]),
        ],
        outputs=[
            tensor(name=spec.name, datatype=spec.datatype, shape=_shape_of(version, spec)) for spec in version.outputs
        ],
    )


def _shape_of(version: ServableVersion, spec: TensorSpec) -> tuple[int, ...]:
    """An output's shape for both kinds of input: that of a mask or a painting is the picture's for encoded images."""
    if version.task is Task.CLASSIFICATION:
        return -1, version.embedding_dimension or -1 if spec.name == EMBEDDING.name else len(version.labels)
    if version.task is Task.DETECTION:
        return -1, MAX_DETECTIONS, *spec.shape[2:]
    return {1: (-1,), 3: (-1, -1, -1), 4: (-1, 3, -1, -1)}[len(spec.shape)]


def payload(request: pb.ModelInferRequest, version: ServableVersion, max_items: int) -> Payload:
    """Check a request against the version that serves, and take its bytes as they are.

    Raises:
        InvalidArgumentError: names every field that is wrong.
    """
    violations = Violations()
    _check_outputs(request, version, violations)
    if len(request.inputs) != 1:
        violations.add("inputs", f"must be exactly one tensor, {version.input_name!r}; has {len(request.inputs)}")
        violations.raise_if_any()
    tensor = request.inputs[0]
    if tensor.name != version.input_name:
        violations.add("inputs[0].name", f"must be {version.input_name!r}, is {tensor.name!r}")
    if tensor.datatype not in ("FP32", "BYTES"):
        violations.add("inputs[0].datatype", f"must be FP32 (pixels) or BYTES (encoded images), is {tensor.datatype!r}")
        violations.raise_if_any()
    shape = tuple(tensor.shape)
    _check_shape(tensor.datatype, shape, version, max_items, violations)
    _check_contents(request, tensor, violations)
    violations.raise_if_any()
    field = "raw_input_contents[0]" if request.raw_input_contents else "inputs[0].contents"
    asked = tuple(output.name for output in request.outputs)
    try:
        if tensor.datatype == "BYTES":
            return replace(_encoded(request, tensor, shape, version.task), outputs=asked)
        return replace(_floats(request, tensor, shape), outputs=asked)
    except TensorError as error:
        violations.add(field, str(error))
    violations.raise_if_any()
    raise AssertionError("unreachable")


def _check_outputs(request: pb.ModelInferRequest, version: ServableVersion, violations: Violations) -> None:
    names = [spec.name for spec in version.outputs]
    wanted = " or ".join(map(repr, names))
    seen: set[str] = set()
    for index, output in enumerate(request.outputs):
        if output.name not in names:
            violations.add(f"outputs[{index}].name", f"must be {wanted}, is {output.name!r}")
        elif output.name in seen:
            violations.add(f"outputs[{index}].name", f"{output.name!r} is asked for twice")
        seen.add(output.name)
        if "classification" in output.parameters and output.parameters["classification"].int64_param:
            violations.add(f"outputs[{index}].parameters", "the classification extension is not served")


def _check_shape(
    datatype: str, shape: tuple[int, ...], version: ServableVersion, max_items: int, violations: Violations
) -> None:
    if datatype == "FP32":
        if not version.takes(shape):
            violations.add("inputs[0].shape", f"must be {_input_words(version)}, is {list(shape)}")
            return
    elif len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        violations.add("inputs[0].shape", f"must be [N] or [N, 1], is {list(shape)}")
        return
    if not 1 <= shape[0] <= max_items:
        violations.add("inputs[0].shape", f"the batch must be in 1..{max_items}, is {shape[0]}")


def _input_words(version: ServableVersion) -> str:
    if not version.any_size:
        return f"[N, 3, {version.height}, {version.width}]"
    most = f"height at most {version.height}, width at most {version.width}"
    return f"[N, 3, height, width] with {most}, both multiples of {FIT_MULTIPLE}"


def _check_contents(
    request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, violations: Violations
) -> None:
    typed = [kind for kind in _TYPED if len(getattr(tensor.contents, f"{kind}_contents"))]
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1:
            count = len(request.raw_input_contents)
            violations.add("raw_input_contents", f"must have one entry for each input, has {count} for 1")
        if typed:
            violations.add("inputs[0].contents", "must be empty when raw_input_contents is used")
        return
    expected = "fp32" if tensor.datatype == "FP32" else "bytes"
    if not typed:
        violations.add("inputs[0].contents", f"is empty: use raw_input_contents or {expected}_contents")
    for kind in typed:
        if kind != expected:
            violations.add(f"inputs[0].contents.{kind}_contents", f"{tensor.datatype} is sent as {expected}_contents")


def _encoded(
    request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], task: Task
) -> Payload:
    if request.raw_input_contents:
        images = parse_bytes(request.raw_input_contents[0], shape[0])
    else:
        images = tuple(tensor.contents.bytes_contents)
        if len(images) != shape[0]:
            raise TensorError(f"has {len(images)} elements, the shape declares {shape[0]}")
    if task in (Task.CLASSIFICATION, Task.DETECTION):
        return Payload(PayloadKind.ENCODED, images, shape[0])
    # Masks and paintings as numbers are as large as the pictures that were sent: each request answers for its own.
    return Payload(PayloadKind.ENCODED, images, shape[0], form=AnswerForm.TENSORS, alone=True)


def _floats(
    request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]
) -> Payload:
    if request.raw_input_contents:
        raw = request.raw_input_contents[0]
    else:
        raw = np.asarray(tensor.contents.fp32_contents, "<f4").tobytes()
    check_floats(raw, shape)
    return Payload(PayloadKind.TENSOR, (raw,), shape[0], shape[1:])
