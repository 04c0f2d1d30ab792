"""The models that one replica holds at a time, within a budget of bytes.

A model is loaded when it is asked for. Those that were not asked for longest make room; pinned ones never do. One that
answers is let go only when none is idle: it then finishes what it has and takes no more, so that models that are asked
for without a pause cannot keep the others out.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from enxerto.inference.domain import Occupancy
from enxerto.inference.errors import ModelTooLargeError, NoRoomError
from enxerto.kernel.names import VersionName

logger = logging.getLogger(__name__)

M = TypeVar("M")
T = TypeVar("T")

_PATIENCE_S = 0.1
"""How long a load waits for some model to be idle before it asks for one that answers."""
_FIRST_GUESS = 2
"""What a model takes before it was ever measured, in sizes of its file: the weights may be packed beside the file's."""
_FETCHERS = 4


@dataclass(frozen=True, slots=True)
class Source(Generic[M]):
    """How a model comes into memory."""

    least_bytes: int
    """What it takes at least: the size of its file."""
    load: Callable[[], M]
    """Called in a thread of its own; no two loads at once."""


@dataclass(frozen=True, slots=True)
class ResidentLimits:
    """How much is held, and how long that may be waited for."""

    budget_bytes: int
    """Of all models together."""
    wait_s: float
    """A call waits so long for its model."""
    max_waiting: int
    """Calls that may wait; more are refused."""


@dataclass(slots=True)
class _Resident(Generic[M]):
    model: M | None
    size_bytes: int
    users: int = 0
    leaving: bool = False
    """Whether it takes no more users."""

    def end(self) -> None:
        """Let the model go, and what it took."""
        self.model = None
        return_freed_memory()


class Residents(Generic[M]):
    """Models by version. Belongs to one event loop."""

    def __init__(
        self,
        find: Callable[[VersionName], Source[M]],
        limits: ResidentLimits,
        measure: Callable[[], Awaitable[int]],
    ) -> None:
        """Hold models.

        Args:
            find: where a model comes from; called in a thread, may fetch its file.
            limits: how much is held.
            measure: bytes that the process takes; a model takes what loading it adds, its file at least.
        """
        self._find = find
        self._limits = limits
        self._measure = measure
        self._models: OrderedDict[VersionName, _Resident[M]] = OrderedDict()
        self._sizes: dict[VersionName, int] = {}
        self._pinned: frozenset[VersionName] = frozenset()
        self._loading: dict[VersionName, asyncio.Task[None]] = {}
        self._waiting: Counter[VersionName] = Counter()
        # One load at a time, so that what is measured is its own.
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "fetching")
        self._loader = ThreadPoolExecutor(1, "loading")
        self._loads = self._evictions = 0

    @property
    def max_waiting(self) -> int:
        """Calls that may wait."""
        return self._limits.max_waiting

    @property
    def occupancy(self) -> Occupancy:
        """What is held now."""
        return Occupancy(
            len(self._models),
            self._held,
            self._limits.budget_bytes,
            self._loads,
            self._evictions,
            self._waiting.total(),
        )

    @property
    def _held(self) -> int:
        return sum(resident.size_bytes for resident in self._models.values())

    @contextlib.asynccontextmanager
    async def using(self, version: VersionName) -> AsyncIterator[M]:
        """The model of a version, which stays until the end of the context.

        Raises:
            NoRoomError: too many calls wait already, or the model was not loaded in time.
            ModelTooLargeError: it takes more than the budget, or than pinned models leave of it.
            Exception: whatever finding or loading it raised.
        """
        resident = self._usable(version) or await self._wait_for(version)
        self._models.move_to_end(version)
        try:
            assert resident.model is not None
            yield resident.model
        finally:
            resident.users -= 1
            self._released.set()

    async def arrange(self, versions: Collection[VersionName], pinned: Collection[VersionName]) -> None:
        """Hold none but these versions, and let pinned ones stay. Models of others go when they have answered."""
        self._pinned = frozenset(pinned)
        self._sizes = {version: size for version, size in self._sizes.items() if version in versions}
        unneeded = [version for version in self._models if version not in versions]
        for version in unneeded:
            self._models[version].leaving = True
        for version in unneeded:
            resident = self._models.get(version)
            if resident is not None and resident.leaving and not resident.users:
                await self._let_go(version)

    def _usable(self, version: VersionName) -> _Resident[M] | None:
        """The resident with one more user, when it is there to be used."""
        resident = self._models.get(version)
        if resident is None or resident.leaving:
            return None
        resident.users += 1
        return resident

    async def _wait_for(self, version: VersionName) -> _Resident[M]:
        limits = self._limits
        if self._waiting.total() >= limits.max_waiting:
            raise NoRoomError(version, f"{limits.max_waiting} calls wait for models to be loaded")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.wait_s
        self._waiting[version] += 1
        try:
            while (resident := self._usable(version)) is None:
                loading = self._loading.get(version)
                if loading is None:
                    loading = self._loading[version] = asyncio.ensure_future(self._bring(version))
                    # Its error is logged, whether or not somebody still waits for it.
                    loading.add_done_callback(lambda done: done.cancelled() or done.exception())
                # A caller who gives up does not take the model from the others.
                await asyncio.wait({loading}, timeout=max(0.0, deadline - loop.time()))
                if not loading.done():
                    raise NoRoomError(version, f"the model was not loaded within {limits.wait_s:g} s")
                loading.result()
            return resident
        finally:
            # Only now may it make room for others: what was loaded for somebody is used once.
            self._waiting[version] -= 1
            self._waiting += Counter()
            self._released.set()

    async def _bring(self, version: VersionName) -> None:
        try:
            source = await self._in(self._fetchers, lambda: self._find(version))
            async with self._turn:
                if (resident := self._models.get(version)) is not None:
                    resident.leaving = False
                elif self._waiting[version]:
                    await self._load(version, source)
        except Exception as error:
            logger.warning("a model was not loaded", extra={"version": str(version), "error": str(error)})
            raise
        finally:
            del self._loading[version]

    async def _load(self, version: VersionName, source: Source[M]) -> None:
        least, measured = source.least_bytes, sys.maxsize
        for last in (False, True):
            known = self._sizes.get(version)
            await self._make_room(version, known or least * _FIRST_GUESS, known or least)
            before = await self._measure()
            model = await self._in(self._loader, source.load)
            # Whatever else grew meanwhile only adds: of several measurements the smallest is nearest.
            measured = max(least, min(measured, known or measured, await self._measure() - before))
            self._sizes[version] = measured
            self._loads += 1
            self._models[version] = _Resident(model, measured)
            del model
            try:
                # Only now is it known what it takes.
                await self._make_room(version, 0, measured)
                break
            except ModelTooLargeError:
                await self._let_go(version)
                if last:
                    raise
                del self._sizes[version]
        logger.info("model loaded", extra={"version": str(version), "size_bytes": measured, "held_bytes": self._held})

    async def _make_room(self, version: VersionName, wanted: int, least: int) -> None:
        """Let go what was not used longest.

        Args:
            version: that the room is for.
            wanted: more bytes.
            least: what the model takes as far as is known.

        Raises:
            ModelTooLargeError: pinned models leave less than that; what never fits makes nothing go.
        """
        while True:
            self._refuse_too_large(version, least)
            if self._held + wanted <= self._limits.budget_bytes:
                return
            victim = await self._victim(version)
            if victim is None:
                # All the others are pinned: there is room for what is known, if not for what was guessed.
                return
            # Counted before it is let go, which takes a while in which it is among the models no more.
            self._evictions += 1
            await self._let_go(victim)
            logger.info("model let go", extra={"version": str(victim), "held_bytes": self._held})

    def _refuse_too_large(self, version: VersionName, least: int) -> None:
        others = [self._models[each].size_bytes for each in self._models.keys() & self._pinned if each != version]
        if sum(others) + least <= self._limits.budget_bytes:
            return
        text = f"the model takes {least} bytes of memory, the budget of a replica is {self._limits.budget_bytes}"
        raise ModelTooLargeError(version, f"{text}, of which pinned models take {sum(others)}" if others else text)

    async def _victim(self, version: VersionName) -> VersionName | None:
        """The model that makes room, without a user; None when all that are left are pinned."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while self._movable(version):
            if (idle := self._idle(version)) is not None:
                return idle
            left = deadline - loop.time()
            if left <= 0:
                break
            self._released.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._released.wait(), left)
        victim = next(iter(self._movable(version)), None)
        if victim is not None:
            resident = self._models[victim]
            resident.leaving = True
            while resident.users:
                self._released.clear()
                await self._released.wait()
        return victim

    def _movable(self, version: VersionName) -> list[VersionName]:
        """What may make room for a version, the least recently used first."""
        return [each for each in self._models if each != version and each not in self._pinned]

    def _idle(self, version: VersionName) -> VersionName | None:
        """The first of them that nobody uses or has waited for."""
        unused = (each for each in self._movable(version) if not self._models[each].users)
        return next((each for each in unused if self._models[each].leaving or not self._waiting[each]), None)

    async def _let_go(self, version: VersionName) -> None:
        resident = self._models.pop(version, None)
        if resident is not None:
            await self._in(self._loader, resident.end)

    async def _in(self, executor: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)


def resident_bytes() -> int:
    """What this process takes of the machine's memory, without what it has freed."""
    return_freed_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Make glibc give back what it keeps; elsewhere nothing needs to be done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
