"""Names, types and shapes of a safetensors file's tensors, read from its header alone: no torch, no data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_LENGTH_BYTES: Final = 8
_MAX_HEADER: Final = 100_000_000
"""Bytes; the format's own limit."""

_ITEM_BITS: Final = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}


class SafetensorsError(ValueError):
    """A file is no safetensors file, or a damaged one; the message is for people."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor.

    Attributes:
        dtype: in the format's words, such as F32.
        shape: of the tensor.
    """

    dtype: str
    shape: tuple[int, ...]


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as a safetensors file does; a zip or a pickle never does."""
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    return len(start) > _LENGTH_BYTES and start[-1:] == b"{" and int.from_bytes(start[:-1], "little") <= _MAX_HEADER


def read_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors by name; the data behind the header is only measured.

    Raises:
        SafetensorsError: the header is damaged, or the file is shorter or longer than it says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        entries, start = _entries(file, size)
    tensors: dict[str, TensorHeader] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        if name != "__metadata__":
            tensors[name], span = _tensor(name, entry)
            spans.append(span)
    if not tensors:
        raise SafetensorsError("it holds no tensors")
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise SafetensorsError("its tensors overlap or leave gaps")
        position = end
    if start + position != size:
        raise SafetensorsError(f"it has {size} bytes and its header speaks of {start + position}: a truncated copy?")
    return tensors


def _entries(file: BinaryIO, size: int) -> tuple[dict[str, object], int]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or not 2 <= length <= min(_MAX_HEADER, size - _LENGTH_BYTES):
        raise SafetensorsError("it does not begin with a safetensors header")
    try:
        entries = json.loads(file.read(length))
    except ValueError as error:
        raise SafetensorsError(f"its header is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise SafetensorsError("its header is not a JSON object")
    return entries, _LENGTH_BYTES + length


def _tensor(name: str, entry: object) -> tuple[TensorHeader, tuple[int, int]]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise SafetensorsError(f"the entry of {name} is malformed")
    items = 1
    for side in shape:
        if not isinstance(side, int) or side < 0:
            raise SafetensorsError(f"the shape of {name} is malformed")
        items *= side
    bits = _ITEM_BITS.get(dtype)
    if bits is None or not 0 <= begin <= end or (end - begin) * 8 != items * bits:
        raise SafetensorsError(f"the data of {name} does not fit its type and shape")
    return TensorHeader(dtype, tuple(shape)), (begin, end)
