"""Wakes those who wait for a change, within this process. Other processes are noticed by looking again."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator


class Signals:
    """Named signals; a waiter looks at the store again after each."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.stopping = False
        """Set when the process drains: streams end, so that clients reconnect elsewhere."""

    def send(self, topic: str) -> None:
        """Wake everyone who waits for the topic."""
        for event in self._waiting.get(topic, ()):
            event.set()

    def stop(self) -> None:
        """Say that the process drains, and wake everyone."""
        self.stopping = True
        for topic in list(self._waiting):
            self.send(topic)

    @contextlib.contextmanager
    def listen(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic is sent, from now on."""
        event = asyncio.Event()
        self._waiting[topic].add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until the event is set or the time is over, and clear it."""
    with contextlib.suppress(TimeoutError):
        # Running out of time is one of the two ways to end.
        await asyncio.wait_for(event.wait(), timeout_s)
    event.clear()
