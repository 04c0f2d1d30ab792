"""The models that one replica holds at a time, within a budget of bytes.

A model is loaded when it is asked for. Those that were not asked for longest make room; one that answers at the moment
never does, so that a burst waits instead of pushing models in and out.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

M = TypeVar("M")


class NoRoomError(Exception):
    """The budget is taken by models that answer at the moment, or the model is larger than all of it."""

    def __init__(self, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary
        """Whether asking again later may help."""


@dataclass(frozen=True, slots=True)
class Source(Generic[M]):
    """How a model comes into memory."""

    least_bytes: int
    """What it takes at least: the size of its file."""
    load: Callable[[], M]
    """Called in a thread of its own; no two loads at once."""


@dataclass(slots=True)
class _Resident(Generic[M]):
    model: M
    size_bytes: int
    users: int = 0


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How full a replica is."""

    models: int
    held_bytes: int
    budget_bytes: int
    loads: int
    evictions: int
    waiting: int
    """Requests that wait for models to be loaded."""


class Residents(Generic[M]):
    """Models by key. Belongs to one event loop."""

    def __init__(
        self,
        find: Callable[[str], Source[M]],
        release: Callable[[M], None],
        budget_bytes: int,
        *,
        max_waiting: int = 64,
        resident_bytes: Callable[[], int] | None = None,
    ) -> None:
        """Hold models.

        Args:
            find: where the model of a key comes from; called in a thread, may fetch its file.
            release: ends what a model holds besides memory.
            budget_bytes: of all models together.
            max_waiting: requests that may wait for models to come in; more are refused.
            resident_bytes: of this process; a model's size is what loading it adds, its file at least.
        """
        self._find = find
        self._release = release
        self._budget = budget_bytes
        self._max_waiting = max_waiting
        self._resident_bytes = resident_bytes or _resident_bytes
        self._models: OrderedDict[str, _Resident[M]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "loading")
        self._loads = self._evictions = 0

    @property
    def occupancy(self) -> Occupancy:
        """What is held now."""
        return Occupancy(len(self._models), self._held, self._budget, self._loads, self._evictions, self._waiting)

    @property
    def _held(self) -> int:
        return sum(resident.size_bytes for resident in self._models.values())

    @contextlib.asynccontextmanager
    async def using(self, key: str) -> AsyncIterator[M]:
        """The model of a key, which stays until the end of the context.

        Raises:
            NoRoomError: too many requests wait for models already, or the model is larger than the budget.
            Exception: whatever finding or loading it raised.
        """
        # Between its loading and this caller's turn others may have pushed it out again.
        while (resident := self._models.get(key)) is None:
            await self._admit(key)
        resident.users += 1
        self._models.move_to_end(key)
        try:
            yield resident.model
        finally:
            resident.users -= 1
            if not resident.users:
                self._released.set()

    async def _admit(self, key: str) -> None:
        if self._waiting >= self._max_waiting:
            raise NoRoomError(f"{self._waiting} requests wait for models to be loaded", temporary=True)
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.ensure_future(self._load_in_turn(key))
            loading.add_done_callback(lambda done: self._ended(key, done))
        self._waiting += 1
        try:
            # A caller who gives up does not take the model from the others.
            await asyncio.shield(loading)
        finally:
            self._waiting -= 1

    def _ended(self, key: str, loading: "asyncio.Task[None]") -> None:
        del self._loading[key]
        if not loading.cancelled() and (error := loading.exception()) is not None:
            logger.warning("a model was not loaded", extra={"model": key, "error": str(error)})

    async def _load_in_turn(self, key: str) -> None:
        async with self._turn:
            await self._load(key)

    async def _load(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        source = await loop.run_in_executor(self._thread, self._find, key)
        if source.least_bytes > self._budget:
            text = f"the model has {source.least_bytes} bytes, the budget of the replica is {self._budget}"
            raise NoRoomError(text, temporary=False)
        await self._make_room(source.least_bytes)

        def load() -> _Resident[M]:
            before = self._resident_bytes()
            model = source.load()
            return _Resident(model, max(source.least_bytes, self._resident_bytes() - before))

        resident = await loop.run_in_executor(self._thread, load)
        self._loads += 1
        # Its own first user, so that it does not make room for itself.
        resident.users += 1
        self._models[key] = resident
        try:
            # Only now is it known what it takes.
            await self._make_room(0)
        except NoRoomError:
            self._drop(key)
            raise
        finally:
            resident.users -= 1
        logger.info("model loaded", extra={"model": key, "size_bytes": resident.size_bytes, "held_bytes": self._held})

    async def _make_room(self, size_bytes: int) -> None:
        """Let go what was not used longest, and wait for what answers."""
        while self._held + size_bytes > self._budget:
            idle = next((key for key, resident in self._models.items() if not resident.users), None)
            if idle is None:
                if len(self._models) == 1 and not size_bytes:
                    text = f"the model takes {self._held} bytes, the budget of the replica is {self._budget}"
                    raise NoRoomError(text, temporary=False)
                self._released.clear()
                await self._released.wait()
                continue
            self._drop(idle)
            self._evictions += 1
            logger.info("model let go", extra={"model": idle, "held_bytes": self._held})

    def _drop(self, key: str) -> None:
        self._release(self._models.pop(key).model)
        _return_freed_memory()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _return_freed_memory() -> None:
    """Make glibc give back what it keeps; elsewhere nothing needs to be done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
