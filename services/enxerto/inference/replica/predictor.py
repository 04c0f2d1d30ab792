"""Batches through ONNX Runtime; knows nothing of Ray or gRPC."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from enxerto.inference.domain import AnswerForm, BatchAnswer, Bytes, ItemRefusal, PictureAnswer, Tensor
from enxerto.inference.replica.encoding import AnswerBudget, AnswerTooLargeError, GraphAnswer, encode
from enxerto.inference.replica.turns import InTurn, OneThread, SideBySide
from enxerto.vision.contracts import DTYPES, Outputs, joined
from enxerto.vision.geometry import Placement
from enxerto.vision.images import Float32Images, ImageError, ImageLimits, UInt8Image, load_placed, to_batch
from enxerto.vision.onnx.fixed_batches import FixedBatches
from enxerto.vision.onnx.session import TENSORRT, OnnxModel
from enxerto.vision.specs import FIT_MULTIPLE, Resize, Task

T = TypeVar("T")
S = TypeVar("S")

MAX_ANSWER_BYTES = 192 * 2**20
"""Of one batch: what the message to the front holds, less what is around it."""

PIXELS_PER_THREAD = 2 * 224 * 224
"""Of the images that go through the graph in one call on a CPU, for each thread: larger calls fall out of its cache.
Measured with 2 threads; docs/performance.md has the figures."""

GPU_BATCHES = (1, 2, 4, 8, 16, 32)
"""Sizes that a GPU sees: a batch is filled up to the next one. For each new size cuDNN plans every convolution anew,
which takes longer than a hundred batches; docs/performance.md has the figures."""

GPU_PIXELS = 32 * 320 * 320
"""Of the largest batch that a GPU sees, which bounds the memory that large inputs take."""

_CPU_WARM_UP = (1, 2)
_WARM_UP_SIDE = 256
_TENSORS: Mapping[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2"), "UINT8": np.dtype("u1")}
_DATATYPES = {np.dtype(dtype).name: name for name, dtype in DTYPES.items()}


class ShapeError(ValueError):
    """A tensor is not what the graph takes."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Part of a batch: images that go into the graph in one call, or one call each when they differ in size."""

    batches: tuple[Float32Images, ...]
    placements: tuple[Placement, ...]
    positions: tuple[int, ...]
    """Of the images in the batch."""
    refusals: tuple[ItemRefusal, ...]


@dataclass(frozen=True, slots=True)
class Workers:
    """Where the predictors of a process work."""

    pixels: SideBySide
    """Decodes and encodes."""
    compute: InTurn | OneThread
    """One batch at a time: two would compete for the same cores."""


class Predictor:
    """One graph with its threads. Called from several threads: one batch is decoded while another computes."""

    def __init__(
        self,
        model: Path,
        threads: int,
        limits: ImageLimits,
        *,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        workers: Workers | None = None,
        device: str = "cpu",
        engines: Path | None = None,
    ) -> None:
        """Load and warm up.

        Args:
            model: ONNX file with the metadata of `enxerto.vision`.
            threads: of ONNX Runtime, and as many for decoding and encoding.
            limits: what an encoded image may cost.
            max_answer_bytes: of a batch's masks and paintings, over all callers.
            workers: shared with other predictors, which then also keep no memory of their own for activations.
            device: in torch's notation.
            engines: folder of this file's own; with it TensorRT computes on a GPU what it may: see `tensorrt_options`.

        Raises:
            ModelCardError: the file is not one that can be served.
            TensorRtMissingError: it is to compute, and is not there.
        """
        self._model = OnnxModel(model, threads=threads, device=device, keeps_activations=workers is None)
        self._limits = limits
        self._max_answer_bytes = max_answer_bytes
        if workers is None:
            workers = Workers(SideBySide(threads), InTurn() if self._model.on_cpu else OneThread())
        self._pixels, self._compute = workers.pixels, workers.compute
        self._threads = threads
        card = self._model.card
        self._task = card.task
        self._spec = card.preprocess
        self._any_size = card.preprocess.resize is Resize.FIT
        self._output_names = self._model.output_names
        largest = GPU_PIXELS // math.prod(self.row_shape[1:])
        self._gpu_batches = [size for size in GPU_BATCHES if size <= max(1, largest)]
        if engines is not None and not self._model.on_cpu:
            self._model = self._on_tensorrt(model, device, engines)
        self._fixed: FixedBatches | None = None
        self._warm_up()

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers in use."""
        return self._model.providers

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (3, height, width); the largest one when the graph takes any size."""
        return 3, self._spec.height, self._spec.width

    def encoded(
        self, contents: Sequence[bytes], form: AnswerForm = AnswerForm.PICTURES, names: Collection[str] = ()
    ) -> BatchAnswer:
        """Decode and answer encoded images; those that have no answer are named, the others answered.

        Args:
            contents: the files' bytes.
            form: of masks and painted pictures.
            names: classification: of the outputs to give; all of them when there are none.
        """
        start = time.perf_counter()
        parts = self._in_threads(self._decode, list(enumerate(contents)))
        refusals = tuple(refusal for part in parts for refusal in part.refusals)
        decode_s = time.perf_counter() - start
        if not any(part.positions for part in parts):
            return BatchAnswer((), (), refusals, decode_s, 0.0)
        if self._task is Task.CLASSIFICATION:
            outputs, compute_s = self._run_whole([batch for part in parts for batch in part.batches], names)
            return BatchAnswer(_tensors(outputs), (), refusals, decode_s, compute_s)
        ran, compute_s = self._run_all(parts)
        start = time.perf_counter()
        pictures, too_large = self._encode(ran, form)
        encode_s = time.perf_counter() - start
        return BatchAnswer((), pictures, refusals + too_large, decode_s, compute_s, encode_s)

    def tensor(
        self,
        parts: Sequence[Bytes],
        shape: tuple[int, ...],
        datatype: str = "FP32",
        names: Collection[str] = (),
    ) -> BatchAnswer:
        """Answer a tensor.

        Args:
            parts: little-endian rows in order.
            shape: over all parts, (N, 3, height, width), or (N, height, width, 3) of UINT8.
            datatype: FP32 or FP16 in [0, 1], or UINT8 in 0..255.
            names: of the outputs to give; all of them when there are none.

        Raises:
            ShapeError: datatype, shape or number of bytes is not what the graph takes.
        """
        dtype = _TENSORS.get(datatype)
        if dtype is None:
            raise ShapeError(f"a tensor is one of {', '.join(_TENSORS)}, got {datatype!r}")
        pixels = datatype == "UINT8"
        if not self._takes((shape[0], shape[3], *shape[1:3]) if pixels and len(shape) == 4 else shape):
            words = "(N, {1}, {2}, {0})" if pixels else "(N, {0}, {1}, {2})"
            raise ShapeError(f"the graph takes {words.format(*self.row_shape)}, got {shape}")
        row = dtype.itemsize * math.prod(shape[1:])
        if sum(map(len, parts)) != shape[0] * row or any(len(part) % row for part in parts):
            raise ShapeError(f"shape {shape} needs {shape[0] * row} bytes in whole rows")
        given = [np.frombuffer(part, dtype).reshape(-1, *shape[1:]) for part in parts]
        start = time.perf_counter()
        if pixels:
            given = self._in_threads(lambda some: to_batch([*np.concatenate(some)]), given)
        elif datatype == "FP16":
            given = self._in_threads(lambda some: np.concatenate(some).astype(np.float32), given)
        decode_s = time.perf_counter() - start
        outputs, compute_s = self._run_whole(given, names)
        return BatchAnswer(_tensors(outputs), (), (), decode_s, compute_s)

    def _on_tensorrt(self, model: Path, device: str, engines: Path) -> OnnxModel:
        # Imported where it is asked for: it brings `onnx`, which takes memory.
        from enxerto.vision.onnx.tensorrt import (  # noqa: PLC0415
            TensorRtMissingError,
            building,
            tensorrt_options,
        )

        options = tensorrt_options(model, self._model.card, self._gpu_batches[-1], engines)
        if options is None:
            return self._model
        with building(options):
            found = OnnxModel(model, device=device, tensorrt=options)
        if TENSORRT not in found.providers:
            raise TensorRtMissingError(found.providers)
        return found

    def _warm_up(self) -> None:
        if not self._model.on_cpu and not self._any_size:
            self._fixed = FixedBatches(self._model, self._gpu_batches)
            return
        for size in _CPU_WARM_UP[: 1 if self._any_size else None]:
            self._model.run(np.zeros((size, *self._warm_up_row), np.float32))

    @property
    def _warm_up_row(self) -> tuple[int, int, int]:
        if not self._any_size:
            return self.row_shape
        rows, columns = (min(side // FIT_MULTIPLE * FIT_MULTIPLE, _WARM_UP_SIDE) for side in self.row_shape[1:])
        return 3, max(rows, FIT_MULTIPLE), max(columns, FIT_MULTIPLE)

    def _takes(self, shape: tuple[int, ...]) -> bool:
        if len(shape) != 4 or shape[0] < 1 or min(shape) < 1:
            return False
        if not self._any_size:
            return shape[1:] == self.row_shape
        within = shape[1] == 3 and shape[2] <= self._spec.height and shape[3] <= self._spec.width
        return within and not (shape[2] % FIT_MULTIPLE or shape[3] % FIT_MULTIPLE)

    def _in_threads(self, work: Callable[[Sequence[S]], T], items: Sequence[S]) -> list[T]:
        """One task a thread: handing over every image on its own would cost more than decoding a small one."""
        width = max(1, -(-len(items) // self._threads))
        chunks = [items[first : first + width] for first in range(0, len(items), width)]
        return self._pixels.map(work, chunks)

    def _decode(self, contents: Sequence[tuple[int, bytes]]) -> _Decoded:
        images: list[UInt8Image] = []
        placements, positions, refusals = [], [], []
        for position, content in contents:
            try:
                image, placement = load_placed(content, self._spec, self._limits)
            except ImageError as error:
                refusals.append(ItemRefusal(position, str(error.reason), error.message))
                continue
            images.append(image)
            placements.append(placement)
            positions.append(position)
        groups = [[image] for image in images] if self._any_size else [images]
        batches = tuple(to_batch(group) for group in groups if group)
        return _Decoded(batches, tuple(placements), tuple(positions), tuple(refusals))

    def _run_all(self, parts: Sequence[_Decoded]) -> tuple[list[GraphAnswer], float]:
        """Through the graph in one call, or picture by picture when they differ in size."""
        batches = [batch for part in parts for batch in part.batches]
        calls = [[batch] for batch in batches] if self._any_size else [batches]
        results = [self._run_whole(call) for call in calls]
        rows = [(outputs, row) for outputs, _ in results for row in range(len(next(iter(outputs.values()))))]
        pictures = [each for part in parts for each in zip(part.positions, part.placements, strict=True)]
        ran = [
            GraphAnswer(position, placement, outputs, row)
            for (position, placement), (outputs, row) in zip(pictures, rows, strict=True)
        ]
        return ran, sum(seconds for _, seconds in results)

    def _run_whole(self, batches: Sequence[Float32Images], names: Collection[str] = ()) -> tuple[Outputs, float]:
        # What nobody asked for is neither copied out of ONNX Runtime nor sent.
        wanted = [name for name in self._output_names if name in names] if names else self._output_names
        return self._compute.run(self._run, batches, wanted)

    def _run(self, batches: Sequence[Float32Images], wanted: Sequence[str]) -> tuple[Outputs, float]:
        start = time.perf_counter()
        if self._fixed is not None:
            return self._fixed.run(batches, wanted), time.perf_counter() - start
        images = batches[0] if len(batches) == 1 else np.concatenate(batches)
        outputs = joined([self._model.run(part, wanted) for part in self._parts(images)])
        return outputs, time.perf_counter() - start

    def _parts(self, images: Float32Images) -> list[Float32Images]:
        """What goes through the graph in one call each."""
        count, _, rows, columns = images.shape
        if not self._model.on_cpu:
            largest = self._gpu_batches[-1]
            return np.split(images, range(largest, count, largest))
        at_once = max(1, round(PIXELS_PER_THREAD * self._threads / (rows * columns)))
        if count <= at_once:
            return [images]
        return np.array_split(images, -(-count // at_once))

    def _encode(
        self, ran: Sequence[GraphAnswer], form: AnswerForm
    ) -> tuple[tuple[PictureAnswer, ...], tuple[ItemRefusal, ...]]:
        budget = AnswerBudget(self._max_answer_bytes)

        def encode_part(part: Sequence[GraphAnswer]) -> list[PictureAnswer | ItemRefusal]:
            answers: list[PictureAnswer | ItemRefusal] = []
            for one in part:
                try:
                    answers.append(encode(self._task, one, form, budget))
                except AnswerTooLargeError as error:
                    answers.append(ItemRefusal(one.position, "ANSWER_TOO_LARGE", str(error)))
            return answers

        answers = [answer for part in self._in_threads(encode_part, ran) for answer in part]
        pictures = tuple(answer for answer in answers if isinstance(answer, PictureAnswer))
        return pictures, tuple(answer for answer in answers if isinstance(answer, ItemRefusal))


def _tensors(outputs: Outputs) -> tuple[Tensor, ...]:
    """The graph's outputs in the order of the contract, which the session keeps."""
    return tuple(
        Tensor(name, _DATATYPES[values.dtype.name], values.shape[1:], np.ascontiguousarray(values).tobytes())
        for name, values in outputs.items()
    )
