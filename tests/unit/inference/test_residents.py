"""The models that a replica holds within its budget."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from enxerto.inference.replica.residents import NoRoomError, Residents, Source


class Memory:
    """Models of given sizes, and what is loaded of them."""

    def __init__(self, sizes: dict[str, int], file_share: float = 1.0) -> None:
        self.sizes = sizes
        self.loaded: list[str] = []
        self.loads: list[str] = []
        self._file_share = file_share

    def find(self, key: str) -> Source[str]:
        def load() -> str:
            self.loaded.append(key)
            self.loads.append(key)
            return key

        return Source(round(self.sizes[key] * self._file_share), load)

    def release(self, model: str) -> None:
        self.loaded.remove(model)

    def used(self) -> int:
        return sum(self.sizes[key] for key in self.loaded)

    def residents(self, budget: int, max_waiting: int = 64) -> Residents[str]:
        return Residents(self.find, self.release, budget, max_waiting=max_waiting, resident_bytes=self.used)


async def ask(residents: Residents[str], key: str) -> str:
    async with residents.using(key) as model:
        return model


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_was_not_used_longest_makes_room() -> None:
    memory = Memory({"a": 40, "b": 40, "c": 40})
    residents = memory.residents(100)
    for key in ("a", "b", "a", "c", "a"):
        assert await ask(residents, key) == key
    assert memory.loads == ["a", "b", "c"]
    assert sorted(memory.loaded) == ["a", "c"]
    assert residents.occupancy.held_bytes == 80
    assert (residents.occupancy.loads, residents.occupancy.evictions) == (3, 1)


async def test_ten_models_behind_a_budget_for_four_never_exceed_it() -> None:
    memory = Memory({f"m{index}": 25 for index in range(10)})
    residents = memory.residents(100)
    most = 0

    async def caller(first: int) -> None:
        nonlocal most
        for step in range(50):
            key = f"m{(first + 3 * step) % 10}"
            async with residents.using(key) as model:
                assert model == key
                most = max(most, memory.used())
                await asyncio.sleep(0)

    await asyncio.gather(*(caller(first) for first in range(8)))
    assert most == 100


async def test_a_model_that_answers_is_never_let_go() -> None:
    memory = Memory({"a": 60, "b": 60})
    residents = memory.residents(100)
    async with residents.using("a"):
        waiting = asyncio.ensure_future(ask(residents, "b"))
        # The next request for what is there does not wait behind the one that is not.
        assert await ask(residents, "a") == "a"
        await asyncio.sleep(0)
        assert not waiting.done()
        assert memory.loaded == ["a"]
    assert await waiting == "b"
    assert memory.loaded == ["b"]


async def test_requests_for_the_same_model_load_it_once() -> None:
    memory = Memory({"a": 10})
    residents = memory.residents(100)
    assert await asyncio.gather(*(ask(residents, "a") for _ in range(20))) == ["a"] * 20
    assert memory.loads == ["a"]


async def test_too_many_that_wait_are_told_to_come_again() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100, max_waiting=2)
    async with residents.using("a"):
        waiting = [asyncio.ensure_future(ask(residents, "b")) for _ in range(2)]
        await until(lambda: residents.occupancy.waiting == 2)
        with pytest.raises(NoRoomError) as refused:
            await ask(residents, "b")
        assert refused.value.temporary
    assert await asyncio.gather(*waiting) == ["b", "b"]


@pytest.mark.parametrize("file_share", [1.0, 0.1], ids=["file", "memory"])
async def test_a_model_larger_than_the_budget_is_refused_and_leaves_nothing(file_share: float) -> None:
    memory = Memory({"large": 101, "small": 10}, file_share)
    residents = memory.residents(100)
    for _ in range(2):
        with pytest.raises(NoRoomError, match="budget") as refused:
            await ask(residents, "large")
        assert not refused.value.temporary
        assert memory.loaded == []
    assert await ask(residents, "small") == "small"


async def test_a_model_that_cannot_be_loaded_raises_its_own_error_and_the_next_is_served() -> None:
    memory = Memory({"a": 10})
    residents = memory.residents(100)
    with pytest.raises(KeyError):
        await ask(residents, "unknown")
    assert await ask(residents, "a") == "a"


async def test_a_caller_who_gives_up_leaves_the_others_waiting() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100)
    async with residents.using("a"):
        impatient = asyncio.ensure_future(ask(residents, "b"))
        patient = asyncio.ensure_future(ask(residents, "b"))
        await asyncio.sleep(0)
        impatient.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await impatient
    assert await patient == "b"
