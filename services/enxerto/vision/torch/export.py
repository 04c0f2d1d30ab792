"""Export a grafted network to one ONNX file that carries all that serving needs."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from enxerto.kernel.errors import FailedPreconditionError
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.parity import Parity, compare
from enxerto.vision.contracts import INPUT_NAME
from enxerto.vision.onnx.session import (
    LABELS_KEY,
    PREPROCESS_KEY,
    PROVENANCE_KEY,
    TASK_KEY,
    OnnxModel,
)
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task
from enxerto.vision.torch.data import ImageArray
from enxerto.vision.torch.network import GraftedNetwork, LinearHead

OPSET: Final = 20
"""Newest that the oldest supported ONNX Runtime and its CUDA provider run throughout."""

_MAX_PARITY_IMAGES: Final = 64
_NOISY: Final = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class ExportError(FailedPreconditionError):
    """The network cannot be exported."""

    reason = "EXPORT_FAILED"


class _Served(nn.Module):
    """What is exported: [0, 1] images to probabilities."""

    def __init__(self, network: GraftedNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        if isinstance(network.head, LinearHead):
            self.network.head = network.head.folded()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).softmax(dim=1)  # type: ignore[no-any-return]


def export(
    network: GraftedNetwork,
    path: Path,
    *,
    labels: LabelMap,
    preprocess: PreprocessSpec,
    provenance: Mapping[str, Any],
    task: Task = Task.CLASSIFICATION,
) -> None:
    """Write an ONNX file: `images` (N, 3, H, W) float32 in [0, 1] to `probabilities` (N, classes).

    Args:
        network: on the CPU; not changed.
        path: of the file to write.
        labels: in the order of the head's outputs.
        preprocess: of the network's input.
        provenance: JSON values that travel with the file.
        task: what the network answers.

    Raises:
        ExportError: the exporter or ONNX's checker refuses it.
    """
    served = _Served(network).eval()
    # Two images: a batch of one is taken for a constant.
    example = torch.rand(2, 3, preprocess.height, preprocess.width)
    try:
        with _quiet():
            program = torch.onnx.export(
                served,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # the exporter raises whatever the traced code does
        raise ExportError(f"torch cannot export the network: {str(error).splitlines()[0]}") from error
    _describe(model, labels, preprocess, task, provenance)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_parity(network: GraftedNetwork, model: Path, images: ImageArray, *, threads: int = 1) -> Parity:
    """Compare the file with the network on real images, spread evenly over at most 64 of them.

    Raises:
        ModelCardError: the file was not exported by this package.
        ValueError: there are no images.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MAX_PARITY_IMAGES)).astype(np.int64))
    batch = images.batch(rows).float().div(255).numpy() if len(images) else np.empty((0, 3, 1, 1), np.float32)
    network.eval().to("cpu")

    def reference(part: Float32Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = network(torch.from_numpy(part)).softmax(dim=1).numpy()
        return answer

    return compare(reference, OnnxModel(model, threads=threads).run, batch)


def _describe(
    model: Any, labels: LabelMap, preprocess: PreprocessSpec, task: Task, provenance: Mapping[str, Any]
) -> None:
    # The exporter's notes are a stack trace per node: three quarters of the text, and paths of the machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name = "enxerto"
    values = {
        LABELS_KEY: list(labels.names),
        PREPROCESS_KEY: preprocess.to_json(),
        TASK_KEY: task.value,
        PROVENANCE_KEY: dict(provenance),
    }
    for key, value in values.items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False, sort_keys=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks at length about its own deprecations and optional parts; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
