"""Between the Open Inference Protocol and the domain; gathers field violations."""

from dataclasses import dataclass

import numpy as np

from enxerto.inference.domain import Payload, PayloadKind, Prediction, ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.tensors import TensorError, check_floats, parse_bytes
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, is_id, is_number

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
    return pb.ModelMetadataResponse(
        name=name,
        versions=[str(version.name.number)],
        platform=PLATFORM,
        inputs=[
            tensor(name=version.input_name, datatype="FP32", shape=[-1, 3, version.height, version.width]),
            tensor(name=version.input_name, datatype="BYTES", shape=[-1]),
        ],
        outputs=[tensor(name=version.output_name, datatype="FP32", shape=[-1, len(version.labels)])],
    )


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
    try:
        return _encoded(request, tensor, shape) if tensor.datatype == "BYTES" else _floats(request, tensor, shape)
    except TensorError as error:
        violations.add(field, str(error))
    violations.raise_if_any()
    raise AssertionError("unreachable")


def _check_outputs(request: pb.ModelInferRequest, version: ServableVersion, violations: Violations) -> None:
    for index, output in enumerate(request.outputs):
        if output.name != version.output_name:
            violations.add(f"outputs[{index}].name", f"must be {version.output_name!r}, is {output.name!r}")
        if "classification" in output.parameters and output.parameters["classification"].int64_param:
            violations.add(f"outputs[{index}].parameters", "the classification extension is not served")


def _check_shape(
    datatype: str, shape: tuple[int, ...], version: ServableVersion, max_items: int, violations: Violations
) -> None:
    if datatype == "FP32":
        expected = (3, version.height, version.width)
        if len(shape) != 4 or shape[1:] != expected:
            violations.add("inputs[0].shape", f"must be [N, {', '.join(map(str, expected))}], is {list(shape)}")
            return
    elif len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        violations.add("inputs[0].shape", f"must be [N] or [N, 1], is {list(shape)}")
        return
    if not 1 <= shape[0] <= max_items:
        violations.add("inputs[0].shape", f"the batch must be in 1..{max_items}, is {shape[0]}")


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
    request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]
) -> Payload:
    if request.raw_input_contents:
        images = parse_bytes(request.raw_input_contents[0], shape[0])
    else:
        images = tuple(tensor.contents.bytes_contents)
        if len(images) != shape[0]:
            raise TensorError(f"has {len(images)} elements, the shape declares {shape[0]}")
    return Payload(PayloadKind.ENCODED, images, shape[0])


def _floats(
    request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]
) -> Payload:
    if request.raw_input_contents:
        raw = request.raw_input_contents[0]
    else:
        raw = np.asarray(tensor.contents.fp32_contents, "<f4").tobytes()
    check_floats(raw, shape)
    return Payload(PayloadKind.TENSOR, (raw,), shape[0], shape[1:])


def prediction_to_proto(request: pb.ModelInferRequest, prediction: Prediction) -> pb.ModelInferResponse:
    """The answer, with raw contents."""
    version = prediction.version
    output = pb.ModelInferResponse.InferOutputTensor(
        name=version.output_name, datatype="FP32", shape=[prediction.items, len(version.labels)]
    )
    return pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(version.name.number),
        id=request.id,
        outputs=[output],
        raw_output_contents=[prediction.probabilities],
    )
