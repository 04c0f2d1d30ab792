"""Batches of a few fixed sizes, as a GPU wants them, in memory that it reads by itself.

docs/performance.md has what it brings.
"""

import ctypes
import weakref
from collections.abc import Sequence
from typing import Final

import numpy as np

from enxerto.vision.contracts import Outputs, joined
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.session import OnnxModel

_CUDART: Final = "libcudart.so.13"


class FixedBatches:
    """Fills batches up to the next of a few sizes and cuts larger ones; one caller at a time."""

    def __init__(self, model: OnnxModel, sizes: Sequence[int]) -> None:
        """Warm up every size.

        Args:
            model: that takes images of one size.
            sizes: ascending.
        """
        self._model = model
        self._sizes = sizes
        preprocess = model.card.preprocess
        self._staging = _page_locked((sizes[-1], 3, preprocess.height, preprocess.width))
        self._staging[:] = 0.0
        for size in sizes:
            model.run(self._staging[:size], model.output_names)

    def run(self, batches: Sequence[Float32Images], names: Sequence[str]) -> Outputs:
        """Images in [0, 1], (N, 3, H, W) over all batches, to outputs of N rows; see `OnnxModel.run`."""
        rows = [row for batch in batches for row in batch]
        largest = self._sizes[-1]
        return joined([self._run(rows[first : first + largest], names) for first in range(0, len(rows), largest)])

    def _run(self, rows: Sequence[Float32Images], names: Sequence[str]) -> Outputs:
        count = len(rows)
        size = next(size for size in self._sizes if size >= count)
        images = self._staging[:size]
        for place, row in zip(images, rows, strict=False):
            place[:] = row
        images[count:] = 0.0
        return {name: values[:count] for name, values in self._model.run(images, names).items()}


def _page_locked(shape: tuple[int, ...]) -> Float32Images:
    """Memory that a GPU reads without a copy in between; ordinary memory where CUDA is not there or refuses."""
    images = np.empty(shape, np.float32)
    try:
        cuda = ctypes.CDLL(_CUDART)
    except OSError:
        return images
    address = ctypes.c_void_p(images.ctypes.data)
    if cuda.cudaHostRegister(address, ctypes.c_size_t(images.nbytes), ctypes.c_uint(0)) == 0:
        weakref.finalize(images, cuda.cudaHostUnregister, address)
    return images
