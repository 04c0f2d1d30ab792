"""What the graph of every task takes and gives: what export writes, parity compares and serving reads. Pure.

Every graph takes `images`: (N, 3, H, W), float32, RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.specs import Task, TensorSpec

INPUT_NAME: Final = "images"

IGNORED: Final = 255
"""Value of a mask's pixels that belong to no class; so there are at most 255 classes."""

MAX_DETECTIONS: Final = 100
"""Boxes that a detector's graph gives for every image; rows beyond those found have score 0 and class -1."""

Outputs = Mapping[str, npt.NDArray[Any]]
"""The graph's outputs by name, the images along the first axis."""


@dataclass(frozen=True, slots=True)
class OutputContract:
    """One output.

    Attributes:
        name: of the tensor.
        datatype: Open Inference Protocol name.
        row: its shape after the first axis; -1 where it is the classes, the boxes or the input's pixels.
    """

    name: str
    datatype: str
    row: tuple[int, ...]

    def fits(self, tensor: TensorSpec) -> bool:
        """Whether a graph's tensor is this output."""
        return tensor.name == self.name and tensor.datatype == self.datatype and len(tensor.shape) == 1 + len(self.row)


CONTRACTS: Final[Mapping[Task, tuple[OutputContract, ...]]] = {
    # (N, classes): all classes of an image sum to 1.
    Task.CLASSIFICATION: (OutputContract("probabilities", "FP32", (-1,)),),
    # Highest score first. Boxes are x_min, y_min, x_max, y_max in input pixels. `accepted` is whether the score reaches
    # the version's operating threshold of that class.
    Task.DETECTION: (
        OutputContract("boxes", "FP32", (-1, 4)),
        OutputContract("scores", "FP32", (-1,)),
        OutputContract("classes", "INT64", (-1,)),
        OutputContract("accepted", "BOOL", (-1,)),
    ),
    # (N, H, W) index of the most likely class of each pixel, and (N,) the mean probability of those classes.
    Task.SEGMENTATION: (
        OutputContract("classes", "UINT8", (-1, -1)),
        OutputContract("confidence", "FP32", ()),
    ),
    # (N, 3, H, W) in [0, 1].
    Task.STYLE: (OutputContract("pictures", "FP32", (3, -1, -1)),),
}

EMBEDDING: Final = OutputContract("embedding", "FP32", (-1,))
"""(N, D) pooled features of the backbone, before the head; of any scale."""

OPTIONAL: Final[Mapping[Task, tuple[OutputContract, ...]]] = {
    Task.CLASSIFICATION: (EMBEDDING,),
    Task.DETECTION: (),
    Task.SEGMENTATION: (),
    Task.STYLE: (),
}
"""What a graph may give after the outputs of its contract, in this order; graphs of earlier versions do not."""

DTYPES: Final[Mapping[str, Any]] = {
    "FP32": np.float32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
"""numpy's types of the outputs' datatypes."""


def output_names(task: Task) -> tuple[str, ...]:
    """Names of the outputs that every graph of a task has, in order."""
    return tuple(one.name for one in CONTRACTS[task])


def ordered_outputs(task: Task, outputs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...] | None:
    """A graph's outputs as the contract of the task orders them, the optional ones last; None when they are others."""
    found = {one.name: one for one in outputs}
    contract = CONTRACTS[task] + tuple(one for one in OPTIONAL[task] if one.name in found)
    if set(found) != {one.name for one in contract} or not all(one.fits(found[one.name]) for one in contract):
        return None
    return tuple(found[one.name] for one in contract)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of a batch that went through the graph in parts, one at least."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def outputs_text(task: Task) -> str:
    """The outputs that every graph of a task has, for people."""
    return ", ".join(f"{one.name} {one.datatype} {(-1, *one.row)}" for one in CONTRACTS[task])


MIN_AGREEMENT: Final[Mapping[Task, float]] = {
    Task.CLASSIFICATION: 0.999,
    Task.DETECTION: 0.99,
    Task.SEGMENTATION: 0.99,
    Task.STYLE: 0.99,
}
"""The gate: an export that agrees with the trained network on a smaller share of answers is quarantined.

A picture has one class but many boxes and pixels, some of which lie so near a border that the last bit decides.
"""
