"""What no text of a request may hold."""

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from enxerto.kernel.errors import Violations

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)


def check_texts(request: object) -> None:
    """Hold that no text in a message is one for which PostgreSQL has no place.

    Raises:
        InvalidArgumentError: names every field that has the character 0.
    """
    violations = Violations()
    for field in dict.fromkeys(_with_zeros(request, "")):
        violations.add(field, "must not have the character U+0000")
    violations.raise_if_any()


def _with_zeros(value: object, field: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield field
    elif isinstance(value, Message):
        for descriptor, part in value.ListFields():
            if descriptor.type in _TEXTS:
                yield from _with_zeros(part, f"{field}.{descriptor.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _with_zeros(key, field)
            yield from _with_zeros(part, field)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for index, part in enumerate(value):
            yield from _with_zeros(part, f"{field}[{index}]")
