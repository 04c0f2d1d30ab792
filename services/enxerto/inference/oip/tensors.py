"""The tensors of the Open Inference Protocol on the wire, without copying more than their headers."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enxerto.inference.domain import Bytes

_LENGTH = struct.Struct("<I")
_HALF_EXPONENT = np.uint16(0x7C00)


@dataclass(frozen=True, slots=True)
class Datatype:
    """How elements of one type travel."""

    size_bytes: int | None
    """Of a raw element; None where each tells its own."""
    typed: str | None
    """The field of InferTensorContents without `_contents`; None where only raw contents are allowed."""


DATATYPES = {
    "BOOL": Datatype(1, "bool"),
    "UINT8": Datatype(1, "uint"),
    "UINT16": Datatype(2, "uint"),
    "UINT32": Datatype(4, "uint"),
    "UINT64": Datatype(8, "uint64"),
    "INT8": Datatype(1, "int"),
    "INT16": Datatype(2, "int"),
    "INT32": Datatype(4, "int"),
    "INT64": Datatype(8, "int64"),
    "FP16": Datatype(2, None),
    "FP32": Datatype(4, "fp32"),
    "FP64": Datatype(8, "fp64"),
    "BF16": Datatype(2, None),
    "BYTES": Datatype(None, "bytes"),
}
"""Every datatype of the protocol."""

TYPED_FIELDS = ("bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes")


class TensorError(ValueError):
    """Bytes are not what their tensor declares."""


def parse_bytes(raw: Bytes, count: int) -> tuple[bytes, ...]:
    """Take a BYTES tensor apart.

    Args:
        raw: elements in order, each after its length as little-endian uint32.
        count: elements that the shape declares.

    Raises:
        TensorError: a length reaches beyond the end, or there are more or fewer elements.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(elements) == count:
            raise TensorError(f"{len(raw) - position} bytes follow the {count} elements that the shape declares")
        if position + _LENGTH.size > len(raw):
            raise TensorError(f"element {len(elements)} has {len(raw) - position} of the 4 bytes of its length")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            left = len(raw) - position
            raise TensorError(f"element {len(elements)} declares {length} bytes, {left} are left")
        elements.append(bytes(raw[position : position + length]))
        position += length
    if len(elements) != count:
        raise TensorError(f"has {len(elements)} elements, the shape declares {count}")
    return tuple(elements)


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """The reverse of `parse_bytes`."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def check_size(raw: Bytes, datatype: str, shape: Sequence[int]) -> None:
    """Check that raw bytes are as many as datatype and shape need.

    Raises:
        TensorError: they are not.
    """
    size = DATATYPES[datatype].size_bytes
    assert size is not None
    needed = size * math.prod(shape)
    if len(raw) != needed:
        raise TensorError(f"has {len(raw)} bytes, {datatype} of shape {list(shape)} needs {needed}")


def check_finite(raw: Bytes, datatype: str) -> None:
    """Check that raw FP32 or FP16 bytes hold neither NaN nor infinity.

    Raises:
        TensorError: they do; names the first such element.
    """
    if datatype == "FP16":
        # numpy has no fast way for half floats: an exponent of ones only is what is not finite.
        finite = (np.frombuffer(raw, "<u2") & _HALF_EXPONENT) != _HALF_EXPONENT
    else:
        finite = np.isfinite(np.frombuffer(raw, "<f4"))
    if not finite.all():
        raise TensorError(f"element {int(np.argmin(finite))} is not a finite number")


def pack_pixels(values: Sequence[int]) -> bytes:
    """Typed UINT8 contents as raw ones.

    Raises:
        TensorError: a value is beyond 255.
    """
    pixels = np.asarray(values, np.uint32)
    if pixels.size and pixels.max() > 255:
        index = int(np.argmax(pixels > 255))
        raise TensorError(f"element {index} is {pixels[index]}, UINT8 holds 0 to 255")
    return pixels.astype(np.uint8).tobytes()
