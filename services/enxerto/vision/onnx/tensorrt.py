"""TensorRT beside CUDA: which graphs it may compute, and with which options.

ONNX Runtime names engines by the graph's structure and not by its weights, so that each model file needs a folder of
its own for them: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx

from enxerto.kernel.errors import FailedPreconditionError
from enxerto.vision.contracts import INPUT_NAME
from enxerto.vision.onnx.session import ModelCard
from enxerto.vision.specs import Resize

_FULL: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
_QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


class TensorRtMissingError(FailedPreconditionError):
    """ONNX Runtime cannot load TensorRT."""

    reason = "TENSORRT_MISSING"

    def __init__(self, providers: Sequence[str]) -> None:
        super().__init__(f"TensorRT is to compute, and ONNX Runtime has only {', '.join(providers)}")


def tensorrt_options(model: Path, card: ModelCard, largest: int, engines: Path) -> Mapping[str, str] | None:
    """Options of the provider; None where CUDA computes: inputs of any size, and smaller numbers than float32.

    With those TensorRT would have to choose where they are enough, which the export has done and measured already.

    Args:
        model: ONNX file.
        card: what the file says of itself.
        largest: images in one batch.
        engines: folder of this file's own.
    """
    if card.preprocess.resize is Resize.FIT or not _is_full(onnx.load(model, load_external_data=False).graph):
        return None
    folder, shape = str(engines), f"3x{card.preprocess.height}x{card.preprocess.width}"
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        # Without these each new size of a batch builds the engine anew, which takes minutes.
        "trt_profile_min_shapes": f"{INPUT_NAME}:1x{shape}",
        "trt_profile_opt_shapes": f"{INPUT_NAME}:{largest}x{shape}",
        "trt_profile_max_shapes": f"{INPUT_NAME}:{largest}x{shape}",
    }


@contextlib.contextmanager
def building(options: Mapping[str, str]) -> Iterator[None]:
    """Build engines while no other process does so in the same folder, and without TF32, as on CUDA."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    folder = Path(options["trt_engine_cache_path"])
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_full(graph: onnx.GraphProto) -> bool:
    weights = all(weight.data_type in _FULL for weight in graph.initializer)
    return weights and not any(node.op_type in _QUANTIZERS for node in graph.node)
