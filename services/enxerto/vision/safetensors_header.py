"""Names, types and shapes of a safetensors file's tensors, read from its header alone: no torch, no data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LENGTH_BYTES: Final = 8
_MAX_HEADER: Final = 100_000_000
"""Bytes; the format's own limit."""

_ITEM_BYTES: Final = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
"""Types that weights have."""


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


def read_header(head: bytes, size_bytes: int) -> dict[str, TensorHeader]:
    """The tensors by name; the data behind the header is only measured.

    Args:
        head: the first bytes, with the whole header.
        size_bytes: of the file.

    Raises:
        SafetensorsError: the header is damaged or missing, or the tensors do not fill the file exactly.
    """
    entries, start = _entries(head)
    tensors: dict[str, TensorHeader] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        if name != "__metadata__":
            tensors[name], span = _tensor(name, entry, size_bytes)
            spans.append(span)
    if not tensors:
        raise SafetensorsError("it holds no tensors")
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise SafetensorsError("its tensors overlap or leave gaps")
        position = end
    if start + position != size_bytes:
        raise SafetensorsError(
            f"it has {size_bytes} bytes and its header speaks of {start + position}: a truncated copy?"
        )
    return tensors


def _entries(head: bytes) -> tuple[dict[str, object], int]:
    start = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
    if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{" or start > min(_LENGTH_BYTES + _MAX_HEADER, len(head)):
        raise SafetensorsError("it does not begin with a safetensors header")
    try:
        entries = json.loads(head[_LENGTH_BYTES:start])
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header is not JSON: {type(error).__name__}") from error
    if not isinstance(entries, dict):
        raise SafetensorsError("its header is not a JSON object")
    return entries, start


def _tensor(name: str, entry: object, size_bytes: int) -> tuple[TensorHeader, tuple[int, int]]:
    name = name[:100]
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise SafetensorsError(f"the entry of {name!r} is malformed")
    items = 1
    for side in shape:
        if not isinstance(side, int) or side < 0:
            raise SafetensorsError(f"the shape of {name!r} is malformed")
        items *= side
        if items > size_bytes:
            # Before a product of thousands of large numbers keeps everyone else waiting.
            raise SafetensorsError(f"the tensor {name!r} is larger than the file")
    width = _ITEM_BYTES.get(dtype)
    if width is None or not 0 <= begin <= end or end - begin != items * width:
        raise SafetensorsError(f"the data of {name!r} does not fit its type and shape")
    return TensorHeader(dtype, tuple(shape)), (begin, end)
