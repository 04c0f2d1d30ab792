"""Smaller numbers in an exported graph, with onnxruntime's own tools. Free of torch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from enxerto.kernel.errors import FailedPreconditionError, PreconditionViolation
from enxerto.vision.contracts import INPUT_NAME
from enxerto.vision.finetuning import QuantizationMode, QuantizationSpec
from enxerto.vision.images import Float32Images

CALIBRATION_IMAGES: Final = 64

# Everything else of a vision network costs little time, and loses much when it is rounded: sigmoids and softmaxes,
# boxes computed from anchors, resampling.
_QUANTIZED: Final = ("Conv", "Gemm", "MatMul")

# Coordinates beyond 2048 have no fraction in float16, and ties in scores change which boxes stay.
_FULL_PRECISION: Final = (
    "NonMaxSuppression", "TopK", "RoiAlign", "GridSample", "Resize", "Softmax", "ReduceMean", "CumSum", "ScatterND",
    "InstanceNormalization", "GatherElements", "ArgMax", "Range", "ConstantOfShape",
)  # fmt: skip


class QuantizationError(FailedPreconditionError):
    """The graph cannot be made smaller in this way."""

    reason = "QUANTIZATION_FAILED"


class QuantizationLossError(FailedPreconditionError):
    """The smaller graph answers too much worse."""

    reason = "QUANTIZATION_LOSS"


def quantize(source: Path, target: Path, mode: QuantizationMode, calibration: Float32Images) -> None:
    """Write a smaller version of an exported file; its inputs, outputs and metadata stay as they are.

    Static INT8 weights have a scale for each channel, activations one from the calibration images' extremes. Weights
    take 7 of 8 bits then: processors without VNNI add pairs of products in 16 bits, which saturate.

    Args:
        source: the exported file.
        target: of the file to write.
        mode: not NONE.
        calibration: (N, 3, H, W) float32 training images in [0, 1]; for STATIC_INT8.

    Raises:
        QuantizationError: onnxruntime's tools refuse the graph.
    """
    original = onnx.load(source)
    level = logging.root.level
    # The tools give advice through the root logger that is followed already.
    logging.root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="enxerto-quantization-") as folder:
            made = _make(source, Path(folder), mode, calibration)
    except Exception as error:  # the tools raise whatever their parts do
        raise QuantizationError(f"the graph cannot be made {mode}: {error}") from error
    finally:
        logging.root.setLevel(level)
    del made.metadata_props[:]
    made.metadata_props.extend(original.metadata_props)
    made.producer_name = original.producer_name
    target.write_bytes(made.SerializeToString(deterministic=True))


def check_loss(spec: QuantizationSpec, score_name: str, before: float, after: float) -> None:
    """Refuse a graph that lost too much.

    Args:
        spec: how much it may lose.
        score_name: name of the task's own metric.
        before: of the graph in float32, higher is better.
        after: of the smaller one, on the same images.

    Raises:
        QuantizationLossError: it lost more.
    """
    if not before - after <= spec.max_score_loss:
        text = (
            f"{spec.mode} lowers {score_name} from {before:.4f} to {after:.4f}, "
            f"by more than the {spec.max_score_loss:g} that may be lost"
        )
        raise QuantizationLossError(text, [PreconditionViolation("QUANTIZATION", score_name, text)])


def _make(source: Path, folder: Path, mode: QuantizationMode, calibration: Float32Images) -> Any:
    made = folder / "made.onnx"
    if mode is QuantizationMode.FP16:
        blocked = [*DEFAULT_OP_BLOCK_LIST, *_FULL_PRECISION]
        return convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=blocked)
    ready = folder / "ready.onnx"
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    if mode is QuantizationMode.DYNAMIC_INT8:
        # onnxruntime's integer convolution on CPUs takes unsigned weights only.
        quantize_dynamic(ready, made, weight_type=QuantType.QUInt8, op_types_to_quantize=list(_QUANTIZED))
    else:
        quantize_static(
            ready,
            made,
            _Images(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return onnx.load(made)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """One image a call, so that calibration keeps the activations of one image at a time."""

    def __init__(self, images: Float32Images) -> None:
        self._rows: Iterator[Float32Images] = iter(np.split(images, len(images)))

    def get_next(self) -> dict[str, Float32Images] | None:
        row = next(self._rows, None)
        return None if row is None else {INPUT_NAME: row}
