"""ONNX Runtime sessions, and what an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from enxerto.kernel.errors import DataLossError
from enxerto.vision.images import Float32Images
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task, TensorSpec

LABELS_KEY: Final = "enxerto.labels"
PREPROCESS_KEY: Final = "enxerto.preprocess"
TASK_KEY: Final = "enxerto.task"
PROVENANCE_KEY: Final = "enxerto.provenance"

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "probabilities"

_DATATYPES: Final = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_PREFERRED: Final = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
_CPU: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3


class ModelCardError(DataLossError):
    """An ONNX file does not say what is needed to serve it."""

    reason = "INVALID_MODEL_FILE"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an exported file says about itself: all that serving needs.

    Attributes:
        task: what it answers.
        labels: class names in the order of the probabilities.
        preprocess: from an encoded image to the graph's input; mean and std are inside the graph.
        provenance: dataset digest, base model, weights, run and the like.
        inputs: of the graph.
        outputs: of the graph.
    """

    task: Task
    labels: LabelMap
    preprocess: PreprocessSpec
    provenance: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def choose_providers(available: Sequence[str], *, tensorrt: bool = False) -> tuple[str, ...]:
    """Execution providers in order of preference; CPU is always last, for what the others cannot run.

    TensorRT builds an engine for every input shape, minutes each, so it is used only when asked for.
    """
    chosen = [name for name in _PREFERRED if name in available and (tensorrt or not name.startswith("Tensorrt"))]
    return (*chosen, _CPU)


class OnnxClassifier:
    """One exported classifier in ONNX Runtime; `run` may be called from several threads."""

    def __init__(self, model: Path | bytes, *, threads: int = 1, tensorrt: bool = False) -> None:
        """Load a file, or its bytes.

        Args:
            model: path or content.
            threads: of one call, on the CPU.
            tensorrt: whether to use it where it is available.

        Raises:
            ModelCardError: it is not an ONNX file that this package exported.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning takes whole cores from the other sessions of the machine while this one waits.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        providers = list(choose_providers(ort.get_available_providers(), tensorrt=tensorrt))
        content = str(model) if isinstance(model, Path) else model
        try:
            self._session = ort.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime has no public base of its errors
            raise ModelCardError(f"ONNX Runtime cannot load the model: {error}") from error
        self.card = _read_card(self._session)

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use."""
        return tuple(self._session.get_providers())

    def run(self, images: Float32Images) -> npt.NDArray[np.float32]:
        """(N, 3, H, W) float32 images in [0, 1] to (N, classes) probabilities."""
        (probabilities,) = self._session.run([self.card.outputs[0].name], {self.card.inputs[0].name: images})
        result: npt.NDArray[np.float32] = probabilities
        return result


def _read_card(session: ort.InferenceSession) -> ModelCard:
    metadata = session.get_modelmeta().custom_metadata_map
    missing = [key for key in (LABELS_KEY, PREPROCESS_KEY, TASK_KEY, PROVENANCE_KEY) if key not in metadata]
    if missing:
        raise ModelCardError(f"the ONNX file lacks the metadata {', '.join(missing)}")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    try:
        card = ModelCard(
            task=Task(json.loads(metadata[TASK_KEY])),
            labels=LabelMap(tuple(json.loads(metadata[LABELS_KEY]))),
            preprocess=PreprocessSpec.from_json(json.loads(metadata[PREPROCESS_KEY])),
            provenance=json.loads(metadata[PROVENANCE_KEY]),
            inputs=tuple(_tensor(node) for node in inputs),
            outputs=tuple(_tensor(node) for node in outputs),
        )
    except (ValueError, TypeError) as error:
        raise ModelCardError(f"the ONNX file's metadata cannot be read: {error}") from error
    height, width = card.preprocess.height, card.preprocess.width
    if [(one.datatype, one.shape) for one in card.inputs] != [("FP32", (-1, 3, height, width))]:
        raise ModelCardError(f"the graph's input must be FP32 [-1, 3, {height}, {width}], is {card.inputs}")
    if [(one.datatype, one.shape) for one in card.outputs] != [("FP32", (-1, len(card.labels)))]:
        raise ModelCardError(f"the graph's output must be FP32 [-1, {len(card.labels)}], is {card.outputs}")
    return card


def _tensor(node: ort.NodeArg) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    return TensorSpec(node.name, _DATATYPES.get(node.type, node.type), shape)
