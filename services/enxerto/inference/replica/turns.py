"""Work that is done one piece at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class InTurn(Executor):
    """Runs in the thread that submits, once the work of the others has ended.

    To hand work to another thread and its result back costs twice what it takes a core to wake up, and caches: 0.3 ms
    beside a graph of 10.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Do it now; the future is done."""
        future: Future[T] = Future()
        with self._turn:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised by the future's result
                future.set_exception(error)
        return future
