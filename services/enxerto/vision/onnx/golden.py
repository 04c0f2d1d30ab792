"""A few inputs of an exported network with what it answered: whoever serves it can see that it still does."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enxerto.kernel.errors import DataLossError
from enxerto.vision.contracts import MIN_AGREEMENT, Outputs, output_names
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.parity import Network, agreement
from enxerto.vision.specs import Task

GOLDEN_FILE: Final = "golden.npz"
"""The file's name among a version's artifacts."""

MAX_GOLDEN_BYTES: Final = 256 * 2**20
"""Of the arrays in the file."""

_IMAGES: Final = "images"
_COUNT: Final = 4
_NEAR: Final = 0.05
_INPUT_BYTES: Final = 4 * 2**20
_NUMERIC_KINDS: Final = "biuf"
# What zipfile, zlib and NumPy raise over damaged bytes, and over compression or encryption that they do not know.
_UNREADABLE: Final = (
    ValueError,
    KeyError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
)


class GoldenError(DataLossError):
    """A file of golden inputs cannot be read."""

    reason = "INVALID_GOLDEN_FILE"


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and the answers to them.

    Attributes:
        task: of the network.
        pixels: (N, 3, H, W), uint8, RGB.
        answers: what the exported file gave for them.
    """

    task: Task
    pixels: npt.NDArray[np.uint8]
    answers: Outputs

    @property
    def images(self) -> Float32Images:
        """(N, 3, H, W), float32, in [0, 1]: what goes into the graph."""
        images: Float32Images = self.pixels * np.float32(1 / 255)
        return images

    def agreement(self, found: Outputs) -> float:
        """Share of equal answers, in [0, 1]; 0 when their shapes differ.

        Images whose probabilities all lie within 0.05 of what they were: of so few, one that sits between two classes
        would decide by its last bit. For the other tasks as parity counts boxes, pixels and colours.
        """
        names = output_names(self.task)
        if any(name not in found or found[name].shape != self.answers[name].shape for name in names):
            return 0.0
        if self.task is Task.CLASSIFICATION:
            gaps = np.abs(found["probabilities"] - self.answers["probabilities"]).max(axis=1)
            # NaN is near to nothing.
            return float((gaps <= _NEAR).mean())
        return agreement(self.task, self.answers, found)

    @property
    def least(self) -> float:
        """The agreement that a version needs to be served."""
        return MIN_AGREEMENT[self.task]


def make_golden(task: Task, network: Network, images: Float32Images) -> Golden:
    """The first few of (N, 3, H, W) images in [0, 1], and what the network answers."""
    row_bytes = int(np.prod(images.shape[1:]))
    kept = images[: max(1, min(_COUNT, _INPUT_BYTES // row_bytes))]
    pixels = np.clip(np.rint(kept * 255), 0, 255).astype(np.uint8)
    return Golden(task, pixels, dict(network(pixels * np.float32(1 / 255))))


def write_golden(golden: Golden, path: Path) -> None:
    """Write the file: a NumPy archive of `images` and the task's outputs by name."""
    arrays: dict[str, npt.NDArray[Any]] = {name: golden.answers[name] for name in output_names(golden.task)}
    np.savez_compressed(path, allow_pickle=False, **{_IMAGES: golden.pixels, **arrays})


def read_golden(content: bytes, task: Task) -> Golden:
    """Read the file's bytes.

    Raises:
        GoldenError: it is not such a file, for that task, or larger than it may be.
    """
    names = (_IMAGES, *output_names(task))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > MAX_GOLDEN_BYTES:
            raise GoldenError(f"the golden inputs take {declared} bytes, the limit is {MAX_GOLDEN_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in names}
    except _UNREADABLE as error:
        raise GoldenError(f"the golden inputs cannot be read: {error}") from error
    pixels = found.pop(_IMAGES)
    shaped = pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1] == 3 and len(pixels) > 0
    if not shaped or any(values.ndim == 0 or len(values) != len(pixels) for values in found.values()):
        raise GoldenError("the golden inputs are not images with an answer each")
    if any(values.dtype.kind not in _NUMERIC_KINDS for values in found.values()):
        raise GoldenError("the answers to the golden inputs are not numbers")
    return Golden(task, pixels, found)
