"""The tensors of the Open Inference Protocol on the wire, without copying more than their headers."""

import math
import struct
from collections.abc import Sequence

import numpy as np

_LENGTH = struct.Struct("<I")


class TensorError(ValueError):
    """Bytes are not what their tensor declares."""


def parse_bytes(raw: bytes, count: int) -> tuple[bytes, ...]:
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
        elements.append(raw[position : position + length])
        position += length
    if len(elements) != count:
        raise TensorError(f"has {len(elements)} elements, the shape declares {count}")
    return tuple(elements)


def check_floats(raw: bytes, shape: Sequence[int]) -> None:
    """Check that raw FP32 bytes are as many as the shape needs, and all finite.

    Raises:
        TensorError: they are not.
    """
    needed = 4 * math.prod(shape)
    if len(raw) != needed:
        raise TensorError(f"has {len(raw)} bytes, FP32 of shape {list(shape)} needs {needed}")
    finite = np.isfinite(np.frombuffer(raw, "<f4"))
    if not finite.all():
        raise TensorError(f"element {int(np.argmin(finite))} is not a finite number")
