"""What travels to a replica, and what comes back."""

import enum
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from enxerto.vision.contracts import DTYPES

MAX_ITEMS = 64

DEFAULT_PRIORITY = 2
"""Of requests and deployments that do not say: one may be more urgent, all others less."""

Bytes = bytes | memoryview
"""Of a tensor, perhaps as part of the message that brought it."""

ITEM_BYTES = {"FP32": 4, "FP16": 2, "INT64": 8, "INT32": 4, "UINT8": 1, "BOOL": 1}
"""Bytes of one number of a datatype of the Open Inference Protocol."""

_OUTLINE_BYTES = 96
"""About what an outline takes beside its numbers."""


class PayloadKind(enum.StrEnum):
    """What a request brings."""

    ENCODED = "encoded"
    TENSOR = "tensor"


class AnswerForm(enum.StrEnum):
    """How the answers to encoded images are written."""

    PICTURES = "pictures"
    """Masks and painted pictures as PNGs."""
    TENSORS = "tensors"
    """Masks and painted pictures as numbers."""
    RLE = "rle"
    """Masks as run lengths."""
    POLYGONS = "polygons"
    """Masks as outlines."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Part of a batch: one caller's images."""

    kind: PayloadKind
    parts: tuple[Bytes, ...]
    """ENCODED: one file an image, as bytes. TENSOR: little-endian rows, row-major over all parts."""
    items: int
    """Images."""
    row_shape: tuple[int, ...] = ()
    """TENSOR: the shape of one image, (3, height, width), or (height, width, 3) of UINT8."""
    datatype: str = "FP32"
    """TENSOR: FP32 or FP16 in [0, 1], or UINT8 in 0..255."""
    form: AnswerForm = AnswerForm.PICTURES
    """ENCODED: how the answers are to be written."""
    alone: bool = False
    """Whether nothing may travel with it: its answer may be so large that the limit is to be its own."""
    priority: int = 0
    """1 goes first; of the same number the one that came first. 0 is the deployment's default."""
    outputs: tuple[str, ...] = ()
    """Of the graph, that the answer is to hold; all when empty. A batch computes what any of its parts asks for."""

    @property
    def size_bytes(self) -> int:
        """Bytes over all parts."""
        return sum(len(part) for part in self.parts)

    @property
    def sides(self) -> tuple[int, int]:
        """TENSOR: rows and columns of one image, pixels."""
        rows, columns = self.row_shape[:2] if self.datatype == "UINT8" else self.row_shape[1:]
        return rows, columns

    def goes_with(self, other: "Payload") -> bool:
        """Whether one call to the graph may carry both, which are of one kind."""
        alike = (self.row_shape, self.datatype, self.form) == (other.row_shape, other.datatype, other.form)
        return alike and not self.alone and not other.alone


@dataclass(frozen=True, slots=True)
class ItemRefusal:
    """An image that has no answer."""

    index: int
    """Position in the batch, or in the request."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers, row-major and little-endian; or a file, when the datatype is BYTES."""

    name: str
    datatype: str
    row_shape: tuple[int, ...]
    """Sizes of the axes after the first, along which the images lie; of an answer to one image, of all axes."""
    content: bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's row."""
        return ITEM_BYTES[self.datatype] * math.prod(self.row_shape)

    @property
    def values(self) -> npt.NDArray[Any]:
        """As an array, (images, ...); nothing is copied."""
        values = np.frombuffer(self.content, DTYPES[self.datatype])
        return values.reshape(-1, *self.row_shape)

    @property
    def of_one(self) -> npt.NDArray[Any]:
        """An answer to one image, as an array of `row_shape`; nothing is copied."""
        return np.frombuffer(self.content, DTYPES[self.datatype]).reshape(self.row_shape)

    def rows(self, start: int, end: int) -> "Tensor":
        """Some images' rows; nothing is copied when they are all."""
        if start == 0 and end * self.row_bytes == len(self.content):
            return self
        content = self.content[start * self.row_bytes : end * self.row_bytes]
        return Tensor(self.name, self.datatype, self.row_shape, content)


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed polygon."""

    corners: bytes
    """See `points`, as float32: as objects they would take eight times as much."""
    hole: bool

    @classmethod
    def of(cls, points: Iterable[float], hole: bool) -> Self:
        """An outline through these `points`."""
        return cls(array("f", points).tobytes(), hole)

    @property
    def points(self) -> "array[float]":
        """x and y of each corner in turn, pixels of the picture as it was sent."""
        return array("f", self.corners)


@dataclass(frozen=True, slots=True)
class Segment:
    """The pixels of one class."""

    index: int
    pixel_count: int
    rle: str = ""
    outlines: tuple[Outline, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        return len(self.rle) + sum(8 + len(outline.corners) for outline in self.outlines)

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        return self.size_bytes + _OUTLINE_BYTES * len(self.outlines)


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """The answer to one image, when answers differ in size."""

    width: int
    height: int
    tensors: tuple[Tensor, ...]
    segments: tuple[Segment, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        return self._tensor_bytes + sum(one.size_bytes for one in self.segments)

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        return self._tensor_bytes + sum(one.held_bytes for one in self.segments)

    @property
    def _tensor_bytes(self) -> int:
        return sum(len(tensor.content) for tensor in self.tensors)

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            LookupError: there is none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise LookupError(f"the replica's answer has no {name!r}")


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What a replica says of a batch: `tensors`, or `pictures`, of the images that have an answer, in order."""

    tensors: tuple[Tensor, ...]
    pictures: tuple[PictureAnswer, ...]
    refusals: tuple[ItemRefusal, ...]
    decode_s: float
    compute_s: float
    encode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a request went, in seconds."""

    queue_s: float
    decode_s: float
    compute_s: float
    encode_s: float
    lookup_s: float | None = None
    """Hashing, and looking into the response cache; None without one."""
    cached: bool = False
    """Whether the answer was there."""
