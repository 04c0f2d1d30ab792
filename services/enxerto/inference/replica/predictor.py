"""Batches through ONNX Runtime; knows nothing of Ray or gRPC."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enxerto.inference.domain import BatchAnswer, ItemRefusal
from enxerto.vision.images import Float32Images, ImageError, ImageLimits, UInt8Image, load, to_batch
from enxerto.vision.onnx.session import OnnxModel

_WARM_UP_BATCHES = (1, 2)


class ShapeError(ValueError):
    """A tensor is not what the graph takes."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    images: Float32Images
    refusals: tuple[ItemRefusal, ...]


class Predictor:
    """One graph with its threads. Calls overlap: one batch is decoded while another computes."""

    def __init__(self, model: Path, threads: int, limits: ImageLimits) -> None:
        """Load and warm up.

        Args:
            model: ONNX file with the metadata of `enxerto.vision`.
            threads: of ONNX Runtime, and as many for decoding.
            limits: what an encoded image may cost.

        Raises:
            ModelCardError: the file is not one that can be served.
        """
        self._classifier = OnnxModel(model, threads=threads)
        self._limits = limits
        self._decoders = ThreadPoolExecutor(threads, "decode")
        # Two batches at once in one session would compete for the same cores.
        self._compute = ThreadPoolExecutor(1, "compute")
        self._threads = threads
        card = self._classifier.card
        self._spec = card.preprocess
        self._classes = len(card.labels)
        for size in _WARM_UP_BATCHES:
            self._classifier.run(np.zeros((size, *self.row_shape), np.float32))

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (3, height, width)."""
        return 3, self._spec.height, self._spec.width

    async def encoded(self, contents: Sequence[bytes]) -> BatchAnswer:
        """Decode and answer encoded images; those that cannot be read are named, the others answered."""
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        # One task a thread: handing over every image on its own would cost more than decoding a small one.
        width = max(1, -(-len(contents) // self._threads))
        chunks = [(first, contents[first : first + width]) for first in range(0, len(contents), width)]
        parts = await asyncio.gather(
            *(loop.run_in_executor(self._decoders, self._decode, first, chunk) for first, chunk in chunks)
        )
        refusals = tuple(refusal for part in parts for refusal in part.refusals)
        batches = [part.images for part in parts if len(part.images)]
        decode_s = time.perf_counter() - start
        if not batches:
            return BatchAnswer(b"", self._classes, refusals, decode_s, 0.0)
        probabilities, compute_s = await loop.run_in_executor(self._compute, self._run, batches)
        return BatchAnswer(probabilities, self._classes, refusals, decode_s, compute_s)

    async def tensor(self, parts: Sequence[bytes], shape: tuple[int, ...]) -> BatchAnswer:
        """Answer a tensor.

        Args:
            parts: little-endian float32 rows in order, images in [0, 1].
            shape: (N, 3, height, width) over all parts.

        Raises:
            ShapeError: shape or number of bytes is not what the graph takes.
        """
        if len(shape) != 4 or shape[1:] != self.row_shape or shape[0] < 1:
            raise ShapeError(f"the graph takes (N, {', '.join(map(str, self.row_shape))}), got {shape}")
        row = 4 * int(np.prod(self.row_shape))
        if sum(map(len, parts)) != shape[0] * row or any(len(part) % row for part in parts):
            raise ShapeError(f"shape {shape} needs {shape[0] * row} bytes in whole rows")
        batches = [np.frombuffer(part, "<f4").reshape(-1, *self.row_shape) for part in parts]
        loop = asyncio.get_running_loop()
        probabilities, compute_s = await loop.run_in_executor(self._compute, self._run, batches)
        return BatchAnswer(probabilities, self._classes, (), 0.0, compute_s)

    def _decode(self, first: int, contents: Sequence[bytes]) -> _Decoded:
        images: list[UInt8Image] = []
        refusals = []
        for offset, content in enumerate(contents):
            try:
                images.append(load(content, self._spec, self._limits))
            except ImageError as error:
                refusals.append(ItemRefusal(first + offset, str(error.reason), error.message))
        batch = to_batch(images) if images else np.empty((0, *self.row_shape), np.float32)
        return _Decoded(batch, tuple(refusals))

    def _run(self, batches: Sequence[npt.NDArray[np.float32]]) -> tuple[bytes, float]:
        start = time.perf_counter()
        batch = batches[0] if len(batches) == 1 else np.concatenate(batches)
        probabilities = self._classifier.run(batch)["probabilities"]
        return np.ascontiguousarray(probabilities, "<f4").tobytes(), time.perf_counter() - start
