"""The members of a JSON object in a file, one element of its lists at a time.

Python's own parser reads each element: what it takes is taken here (NaN and Infinity, which Python's tools write and
stricter parsers refuse), and what it says of a broken file is said here, with the line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

_BLOCK_BYTES: Final = 1 << 18
_DONE_CHARACTERS: Final = 1 << 16
_SPACE: Final = re.compile(r"[ \t\n\r]*")
# An error this close to the end of what was read may be a word or a number of which the rest has not been read.
_LONGEST_WORD: Final = 16


class JsonStreamError(ValueError):
    """The file is not JSON, from `line` on."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class NotAnObjectError(ValueError):
    """The file is JSON, and not an object of what was expected."""


class Elements:
    """The elements of a list, in order and once; what nobody takes is gone when the next member is asked for."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._elements = _elements(text)

    def __iter__(self) -> Iterator[Any]:
        return self._elements

    @property
    def line(self) -> int:
        """Where the element that came last begins, from 1; to be asked before the next is."""
        return self._text.line_of_value()


def members(file: Path) -> Iterator[tuple[str, Any]]:
    """The members of the file's object by their keys, in order; a list comes as `Elements`.

    Memory: about twice the largest element or other member, whatever the size of the file.

    Raises:
        JsonStreamError: it is not JSON; earlier members have been yielded.
        UnicodeDecodeError: it is not UTF-8; `start` counts from the file's beginning.
        RecursionError: it is nested too deeply.
        NotAnObjectError: it is JSON, and not an object.
    """
    with file.open("rb") as opened:
        yield from _members(_Text(opened))


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    if text.peek() != "{":
        text.value()
        text.end()
        raise NotAnObjectError
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        text.end()
        return
    while True:
        if text.peek() != '"':
            raise text.error("Expecting property name enclosed in double quotes")
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            elements = Elements(text)
            yield key, elements
            deque(elements, maxlen=0)
        else:
            yield key, text.value()
        if text.take(",}") == "}":
            text.end()
            return


def _elements(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


class _Text:
    """A window on the text that moves on as it is parsed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = json.JSONDecoder().raw_decode
        self._window = ""
        self._at = 0
        self._value_at = 0
        self._counted = 0
        self._line = 1
        self._read_bytes = 0
        self._over = False

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            found = _SPACE.match(self._window, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._window) or not self._more():
                return self._window[self._at : self._at + 1]

    def take(self, wanted: str) -> str:
        """Go past one of the characters `wanted`, and say which it was."""
        found = self.peek()
        if not found or found not in wanted:
            raise self.error(f"Expecting {wanted[0]!r} delimiter")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        # Before and not after it: where it began stays in the window until something else is read.
        self._forget()
        while True:
            try:
                value, end = self._parse(self._window, self._at)
            except json.JSONDecodeError as problem:
                cut = problem.msg.startswith("Unterminated") or problem.pos + _LONGEST_WORD > len(self._window)
                if not cut or not self._more():
                    raise JsonStreamError(problem.msg, self._line_of(problem.pos)) from problem
                continue
            # A number that ends where the window does may go on.
            if end < len(self._window) or not self._more():
                self._value_at, self._at = self._at, end
                return value

    def end(self) -> None:
        """Nothing but space may follow."""
        if self.peek():
            raise self.error("Extra data")

    def error(self, message: str) -> JsonStreamError:
        """Of what comes next."""
        return JsonStreamError(message, self._line_of(self._at))

    def line_of_value(self) -> int:
        """Where the last value begins, from 1."""
        return self._line_of(self._value_at)

    def _line_of(self, at: int) -> int:
        # On from the place that was asked for last: nothing is counted twice.
        self._line += self._window.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def _more(self) -> bool:
        """Read as much again as is waiting, so that a long element costs what it is long; False at the end."""
        if self._over:
            return False
        self._forget(0)
        block = self._file.read(max(_BLOCK_BYTES, len(self._window)))
        self._over = not block
        waiting = len(self._decode.getstate()[0])
        try:
            self._window += self._decode.decode(block, final=self._over)
        except UnicodeDecodeError as problem:
            problem.start += self._read_bytes - waiting
            raise
        self._read_bytes += len(block)
        return True

    def _forget(self, least: int = _DONE_CHARACTERS) -> None:
        if self._at > least:
            self._line_of(self._at)
            self._window, self._at, self._counted = self._window[self._at :], 0, 0
