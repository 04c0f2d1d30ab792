"""Ctrl-C at a moment that suits the screen."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Interrupts:
    """Holds Ctrl-C back until the next item is waited for.

    Raised while rich draws, KeyboardInterrupt leaves rich's lock taken, and its thread, which the main one joins at the
    end, waits for that lock for ever.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._pending = False

    def __enter__(self) -> Self:
        # Python gives signals to the main thread alone.
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._before)
        if self._pending and error is None:
            raise KeyboardInterrupt

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items; KeyboardInterrupt comes from here."""
        iterator = iter(items)
        while True:
            self._waiting = True
            try:
                if self._pending:
                    self._pending = False
                    raise KeyboardInterrupt
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield item

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._waiting:
            raise KeyboardInterrupt
        self._pending = True
