"""Export a trained network to one ONNX file that carries all that serving needs."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import nn

from enxerto.kernel.errors import FailedPreconditionError
from enxerto.vision.contracts import INPUT_NAME, OPTIONAL, Outputs, output_names
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.parity import Parity, compare
from enxerto.vision.onnx.session import LABELS_KEY, PREPROCESS_KEY, PROVENANCE_KEY, TASK_KEY, OnnxModel
from enxerto.vision.specs import FIT_MULTIPLE, LabelMap, PreprocessSpec, Resize, Task

OPSET: Final = 20
"""Newest that the oldest supported ONNX Runtime and its CUDA provider run throughout."""

_NOISY: Final = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class ExportError(FailedPreconditionError):
    """The network cannot be exported."""

    reason = "EXPORT_FAILED"


def export(
    served: nn.Module,
    path: Path,
    *,
    task: Task,
    class_names: tuple[str, ...],
    preprocess: PreprocessSpec,
    provenance: Mapping[str, Any],
) -> None:
    """Write an ONNX file with the input and the outputs that `vision.contracts` gives the task.

    A module with operators of its own says how they are written in ONNX: its `translations` are the exporter's
    `custom_translation_table`. One that gives the task's optional outputs as well has a true `gives_optional`.

    Args:
        served: [0, 1] images to the outputs, a tensor or a tuple in the contract's order; on the CPU, in eval mode.
        path: of the file to write.
        task: what it answers.
        class_names: in label order.
        preprocess: of its input; with `Resize.FIT` rows and columns are free, multiples of 8.
        provenance: JSON values that travel with the file.

    Raises:
        ExportError: the exporter or ONNX's checker refuses it.
    """
    # Two images: a batch of one is taken for a constant.
    example = torch.rand(2, 3, preprocess.height, preprocess.width)
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if preprocess.resize is Resize.FIT:
        rows, columns = (side // FIT_MULTIPLE * FIT_MULTIPLE for side in (preprocess.height, preprocess.width))
        example = torch.rand(2, 3, rows, columns - FIT_MULTIPLE if columns > FIT_MULTIPLE else columns)
        axes |= {
            2: FIT_MULTIPLE * torch.export.Dim("rows", min=1),
            3: FIT_MULTIPLE * torch.export.Dim("columns", min=1),
        }
    translations: Mapping[Any, Callable[..., Any]] = getattr(served, "translations", {})
    try:
        with _quiet():
            program = torch.onnx.export(
                served,
                (example,),
                input_names=[INPUT_NAME],
                output_names=list(_names(served, task)),
                dynamic_shapes=(axes,),
                custom_translation_table=dict(translations) or None,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # the exporter raises whatever the traced code does
        raise ExportError(f"torch cannot export the network: {_first_line(error)}") from error
    _describe(model, LabelMap(class_names), preprocess, task, provenance)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def torch_network(served: nn.Module, task: Task, device: str = "cpu") -> Callable[[Float32Images], Outputs]:
    """The module as what `OnnxModel.run` is: arrays in, outputs by name. On another device, a copy of it."""
    names = _names(served, task)
    network = served if device == "cpu" else copy.deepcopy(served).to(device)

    def run(images: Float32Images) -> Outputs:
        with torch.inference_mode():
            answer = network(torch.from_numpy(images).to(device))
        answers = answer if isinstance(answer, tuple | list) else (answer,)
        return {name: one.cpu().numpy() for name, one in zip(names, answers, strict=True)}

    return run


def check_parity(served: nn.Module, model: OnnxModel, images: Float32Images) -> Parity:
    """Compare the file with the module that it came from on real images.

    Args:
        served: as for `export`.
        model: the exported file.
        images: (N, 3, H, W) float32, in [0, 1].

    Raises:
        ValueError: there are no images, or the outputs have other shapes.
    """
    task = model.card.task
    return compare(task, torch_network(served, task), lambda batch: model.run(batch, model.output_names), images)


def _names(served: nn.Module, task: Task) -> tuple[str, ...]:
    optional = OPTIONAL[task] if getattr(served, "gives_optional", False) else ()
    return *output_names(task), *(one.name for one in optional)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


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
