"""Ctrl-C at a moment that suits the screen."""

import queue
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
        """The items; KeyboardInterrupt comes from here, and what raises in the items too.

        A thread of its own takes them, for gRPC's locks are no safer than rich's. After an interrupt it is left to wait
        for what nobody takes.
        """
        arrived: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(items, arrived), daemon=True).start()
        while True:
            self._waiting = True
            try:
                if self._pending:
                    self._pending = False
                    raise KeyboardInterrupt
                item, error = arrived.get()
            finally:
                self._waiting = False
            if error is not None:
                raise error
            if not item:
                return
            yield item[0]

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._waiting:
            raise KeyboardInterrupt
        self._pending = True


def _pass_on(items: Iterable[T], to: "queue.SimpleQueue[tuple[list[T], BaseException | None]]") -> None:
    """Each item in a list, and at the end an error or an empty one."""
    try:
        for item in items:
            to.put(([item], None))
    except BaseException as error:  # noqa: BLE001 - it is raised where the items are wanted
        to.put(([], error))
    else:
        to.put(([], None))
