"""What a model takes and gives, as ModelMetadata and as ModelConfig say it."""

import json
from dataclasses import dataclass

from enxerto.inference.domain import ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.service import BatchLimits
from enxerto.vision.contracts import EMBEDDING, MAX_DETECTIONS
from enxerto.vision.specs import Task, TensorSpec

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
SERVER_NAME = "enxerto"
EXTENSIONS = ("classification", "model_configuration", "model_repository", "parameters", "statistics")
SHARED_MEMORY_EXTENSION = "system_shared_memory"

_TYPES = {
    "BYTES": pb.TYPE_STRING,
    "UINT8": pb.TYPE_UINT8,
    "FP16": pb.TYPE_FP16,
    "FP32": pb.TYPE_FP32,
    "INT64": pb.TYPE_INT64,
    "BOOL": pb.TYPE_BOOL,
}


@dataclass(frozen=True, slots=True)
class InputForm:
    """One of the ways in which an input may be sent, told apart by datatype."""

    datatype: str
    shape: tuple[int, ...]
    """With the batch first; -1 where dynamic."""
    format: pb.ModelInput.Format.ValueType


def input_forms(version: ServableVersion) -> tuple[InputForm, ...]:
    """Encoded images, pixels as image libraries hold them, and what the graph itself takes, in two precisions."""
    rows, columns = (-1, -1) if version.any_size else (version.height, version.width)
    return (
        InputForm("BYTES", (-1,), pb.ModelInput.FORMAT_NONE),
        InputForm("UINT8", (-1, rows, columns, 3), pb.ModelInput.FORMAT_NHWC),
        InputForm("FP16", (-1, 3, rows, columns), pb.ModelInput.FORMAT_NCHW),
        InputForm("FP32", (-1, 3, rows, columns), pb.ModelInput.FORMAT_NCHW),
    )


def metadata_to_proto(name: str, version: ServableVersion) -> pb.ModelMetadataResponse:
    """What the graph itself takes, encoded images under the same name, and the outputs.

    The other forms are in the configuration only: clients that keep one entry for a name, as perf_analyzer does, keep
    the last datatype and put the axes of all of them together, and those of BYTES are none beside the batch.
    """
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=name,
        versions=[str(version.name.number)],
        platform=PLATFORM,
        inputs=[
            tensor(name=version.input_name, datatype=form.datatype, shape=form.shape)
            for form in input_forms(version)
            if form.datatype in ("BYTES", "FP32")
        ],
        outputs=[
            tensor(name=spec.name, datatype=spec.datatype, shape=_shape_of(version, spec)) for spec in version.outputs
        ],
    )


def config_to_proto(
    name: str, version: ServableVersion, max_items: int, gathering: BatchLimits, *, remembers: bool
) -> pb.ModelConfig:
    """The same as Triton's configuration of a model with a batch axis, which its shapes leave out.

    Args:
        name: of the model, as the caller wrote it.
        version: that serves.
        max_items: images in one request, in whatever form.
        gathering: how requests are put together.
        remembers: whether answers are kept to be given again.
    """
    parameters = {"task": version.task.value, "labels": json.dumps(version.labels), "version": str(version.name)}
    return pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=pb.ModelVersionPolicy(
            specific=pb.ModelVersionPolicy.Specific(versions=[version.name.number]),
        ),
        max_batch_size=max_items,
        input=[
            pb.ModelInput(
                name=version.input_name,
                data_type=_TYPES[form.datatype],
                format=form.format,
                dims=form.shape[1:] or (1,),
            )
            for form in input_forms(version)
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_TYPES[spec.datatype], dims=_shape_of(version, spec)[1:] or (1,))
            for spec in version.outputs
        ],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=gathering.preferred_sizes or (gathering.max_items,),
            max_queue_delay_microseconds=round(gathering.max_delay_s * 1e6),
        ),
        parameters={key: pb.ModelParameter(string_value=value) for key, value in parameters.items()},
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
        response_cache=pb.ModelResponseCache(enable=remembers),
    )


def _shape_of(version: ServableVersion, spec: TensorSpec) -> tuple[int, ...]:
    """An output's shape for every form of input: that of a mask or a painting is the picture's for encoded images."""
    if version.task is Task.CLASSIFICATION:
        return -1, version.embedding_dimension or -1 if spec.name == EMBEDDING.name else len(version.labels)
    if version.task is Task.DETECTION:
        return -1, MAX_DETECTIONS, *spec.shape[2:]
    return {1: (-1,), 3: (-1, -1, -1), 4: (-1, 3, -1, -1)}[len(spec.shape)]
