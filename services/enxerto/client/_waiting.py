"""Waiting for a resource to reach a state that cannot be streamed."""

import time
from collections.abc import Callable
from typing import TypeVar

from enxerto.client._errors import DeadlineExceededError

T = TypeVar("T")

_INTERVAL_S = 0.3


def poll(look: Callable[[], T | None], what: str, timeout_s: float) -> T:
    """Call `look` until it returns something.

    Raises:
        DeadlineExceededError: it did not in time; names `what`.
    """
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"{what} did not end within {timeout_s:g} s", code="DEADLINE_EXCEEDED")
        time.sleep(_INTERVAL_S)
    return found
