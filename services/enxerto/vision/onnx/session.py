"""ONNX Runtime sessions, and what an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from enxerto.kernel.errors import DataLossError
from enxerto.vision.contracts import (
    CONTRACTS,
    INPUT_NAME,
    OPTIONAL,
    Outputs,
    ordered_outputs,
    output_names,
    outputs_text,
)
from enxerto.vision.images import Float32Images
from enxerto.vision.specs import LabelMap, PreprocessSpec, Resize, Task, TensorSpec

LABELS_KEY: Final = "enxerto.labels"
PREPROCESS_KEY: Final = "enxerto.preprocess"
TASK_KEY: Final = "enxerto.task"
PROVENANCE_KEY: Final = "enxerto.provenance"

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
TENSORRT: Final = "TensorrtExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
_CUDA_OPTIONS: Final = {
    # The default tries every algorithm for each new shape of a batch, and batches have all sizes.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles what it holds at every step; other replicas share the GPU.
    "arena_extend_strategy": "kSameAsRequested",
    # The default rounds the factors of convolutions to 10 bits: embeddings then differ from those that the version was
    # made and measured with, and its golden inputs are not answered as they were.
    "use_tf32": "0",
}
_ERRORS_ONLY: Final = 3
_NOTHING: Final = 4


class ModelCardError(DataLossError):
    """An ONNX file does not say what is needed to serve it."""

    reason = "INVALID_MODEL_FILE"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an exported file says about itself: all that serving needs.

    Attributes:
        task: what it answers.
        labels: class names in label order.
        preprocess: from an encoded image to the graph's input; mean and std are inside the graph.
        provenance: dataset digest, base model, weights, run and the like.
        inputs: of the graph: one, as `vision.contracts` says.
        outputs: of the graph, in the order of the task's contract, and then the optional ones that it has.
    """

    task: Task
    labels: LabelMap
    preprocess: PreprocessSpec
    provenance: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def choose_providers(
    available: Sequence[str], device: str = "cpu", tensorrt: Mapping[str, str] | None = None
) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """Execution providers and their options in order of preference; CPU is always last, for what the others cannot run.

    Args:
        available: what this build of ONNX Runtime has.
        device: in torch's notation.
        tensorrt: its options where it is to come before CUDA.
    """
    if not device.startswith("cuda") or CUDA not in available:
        return ((CPU, {}),)
    number = {"device_id": device.partition(":")[2] or "0"}
    first = ((TENSORRT, {**number, **tensorrt}),) if tensorrt is not None and TENSORRT in available else ()
    return *first, (CUDA, {**number, **_CUDA_OPTIONS}), (CPU, {})


class OnnxModel:
    """One exported network in ONNX Runtime; `run` may be called from several threads."""

    def __init__(
        self,
        model: Path | bytes,
        *,
        threads: int = 1,
        device: str = "cpu",
        keeps_activations: bool = True,
        tensorrt: Mapping[str, str] | None = None,
    ) -> None:
        """Load a file, or its bytes.

        Args:
            model: path or content.
            threads: of one call, on the CPU.
            device: in torch's notation; the CPU computes where ONNX Runtime cannot use it, which `providers` tells.
            keeps_activations: whether the memory of the largest batch so far stays for the next one, on the CPU.
            tensorrt: see `choose_providers`.

        Raises:
            ModelCardError: it is not an ONNX file that this package exported.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Its threads spin between the parts of one call, which is a tenth faster, and not between calls: spinning takes
        # whole cores from the other sessions of the machine.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.enable_cpu_mem_arena = keeps_activations
        options.log_severity_level = _ERRORS_ONLY
        providers = list(choose_providers(ort.get_available_providers(), device, tensorrt))
        if providers[0][0] != CPU:
            # Those of the nvidia packages, which torch brings along too, lie where the system's loader does not look.
            ort.preload_dlls()
            # cuDNN tells of every plan that it cannot use on the way to one that it can: thousands for a FP16 graph.
            ort.set_default_logger_severity(_NOTHING)
        content = str(model) if isinstance(model, Path) else model
        try:
            # Its fallback would answer a GPU's error with a session on the CPU, and say so on stdout.
            self._session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime has no public base of its errors
            raise ModelCardError(f"ONNX Runtime cannot load the model: {error}") from error
        self.card = _read_card(self._session)

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use."""
        return tuple(self._session.get_providers())

    @property
    def on_cpu(self) -> bool:
        """Whether nothing but the CPU computes."""
        return self.providers == (CPU,)

    def run(self, images: Float32Images, names: Sequence[str] = ()) -> Outputs:
        """(N, 3, H, W) float32 images in [0, 1] to outputs, as `vision.contracts` names and shapes them.

        Args:
            images: the batch.
            names: of the outputs to compute; those that every graph of the task has when there are none.
        """
        wanted = list(names or output_names(self.card.task))
        return dict(zip(wanted, self._session.run(wanted, {INPUT_NAME: images}), strict=True))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of all outputs that the graph has, in order."""
        return tuple(one.name for one in self.card.outputs)


def _read_card(session: ort.InferenceSession) -> ModelCard:
    metadata = session.get_modelmeta().custom_metadata_map
    missing = [key for key in (LABELS_KEY, PREPROCESS_KEY, TASK_KEY, PROVENANCE_KEY) if key not in metadata]
    if missing:
        raise ModelCardError(f"the ONNX file lacks the metadata {', '.join(missing)}")
    try:
        task = Task(json.loads(metadata[TASK_KEY]))
        given = tuple(map(_tensor, session.get_outputs()))
        card = ModelCard(
            task=task,
            labels=LabelMap(tuple(json.loads(metadata[LABELS_KEY]))),
            preprocess=PreprocessSpec.from_json(json.loads(metadata[PREPROCESS_KEY])),
            provenance=json.loads(metadata[PROVENANCE_KEY]),
            inputs=tuple(_tensor(node) for node in session.get_inputs()),
            outputs=ordered_outputs(task, given) or (),
        )
    except (ValueError, TypeError) as error:
        raise ModelCardError(f"the ONNX file's metadata cannot be read: {error}") from error
    _check_input(card)
    if not card.outputs:
        raise ModelCardError(f"the graph's output must be {outputs_text(task)}, is {_list(given)}")
    _check_sizes(card)
    return card


def _check_input(card: ModelCard) -> None:
    fits = card.preprocess.resize is Resize.FIT
    rows, columns = (-1, -1) if fits else (card.preprocess.height, card.preprocess.width)
    expected = TensorSpec(INPUT_NAME, "FP32", (-1, 3, rows, columns))
    if card.inputs != (expected,):
        raise ModelCardError(f"the graph's input must be {_words(expected)}, is {_list(card.inputs)}")


def _check_sizes(card: ModelCard) -> None:
    """Every output has the batch first, and the sizes that its contract and the number of classes fix."""
    known = {one.name: one.row for one in (*CONTRACTS[card.task], *OPTIONAL[card.task])}
    if card.task is Task.CLASSIFICATION:
        known["probabilities"] = (len(card.labels),)
    for actual in card.outputs:
        sizes = (-1, *known[actual.name])
        fixed = all(wanted in (-1, size) for wanted, size in zip(sizes[1:], actual.shape[1:], strict=True))
        if actual.shape[0] != -1 or not fixed:
            wanted = _words(TensorSpec(actual.name, actual.datatype, sizes))
            raise ModelCardError(f"the graph's output must be {wanted}, is {_words(actual)}")


def _tensor(node: ort.NodeArg) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    return TensorSpec(node.name, _DATATYPES.get(node.type, node.type), shape)


def _words(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.datatype} {list(tensor.shape)}"


def _list(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(map(_words, tensors)) or "none"
