"""Versions that are being tried before they get requests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from enxerto.inference.service.routes import Route


class Trials:
    """One task for each version, so that a slow one keeps no other waiting."""

    def __init__(self, patience_s: float, poke: Callable[[], None]) -> None:
        """Try versions.

        Args:
            patience_s: an outcome that comes within so long is seen by whoever started the trial.
            poke: told when a trial ends.
        """
        self._patience_s = patience_s
        self._poke = poke
        self._tasks: dict[str, asyncio.Future[Route]] = {}

    async def outcome(self, name: str, start: Callable[[], Awaitable[Route]]) -> Route | None:
        """The route of a version that passed, or None while it is being tried.

        Args:
            name: of the application.
            start: makes the trial, unless one is under way.

        Raises:
            EnxertoError: what the trial raised; the next call starts another.
        """
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.ensure_future(start())
            task.add_done_callback(lambda _: self._poke())
        await asyncio.wait({task}, timeout=self._patience_s)
        if not task.done():
            return None
        self._tasks.pop(name, None)
        return await task

    async def keep(self, names: Iterable[str]) -> None:
        """Give up the trials of all other versions."""
        given_up = [self._tasks.pop(name) for name in set(self._tasks) - set(names)]
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
