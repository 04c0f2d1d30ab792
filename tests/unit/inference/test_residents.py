"""The models that a replica holds within its budget."""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable

import pytest

from enxerto.inference.errors import ModelTooLargeError, NoRoomError
from enxerto.inference.replica.residents import ResidentLimits, Residents, Source
from enxerto.kernel.names import VersionName


def version(name: str) -> VersionName:
    return VersionName("default", name, 1)


class Model:
    """Takes memory for as long as anything refers to it."""

    def __init__(self, name: str) -> None:
        self.name = name


class Memory:
    """Models of given sizes, and what is in memory of them."""

    def __init__(self, sizes: dict[str, int], file_share: float = 0.5) -> None:
        self.sizes = sizes
        self.held: Counter[str] = Counter()
        self.loads: list[str] = []
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._file_share = file_share

    def find(self, wanted: VersionName) -> Source[Model]:
        name = wanted.model

        def load() -> Model:
            assert self.gate.wait(5)
            model = Model(name)
            self.held[name] += 1
            weakref.finalize(model, self.held.subtract, {name: 1})
            self.loads.append(name)
            self.most = max(self.most, self.used)
            return model

        return Source(round(self.sizes[name] * self._file_share), load)

    @property
    def used(self) -> int:
        return sum(self.sizes[name] * count for name, count in self.held.items())

    @property
    def names(self) -> list[str]:
        return sorted(self.held.elements())

    async def measure(self) -> int:
        return self.used

    def residents(self, budget: int, max_waiting: int = 64, wait_s: float = 5.0) -> Residents[Model]:
        return Residents(self.find, ResidentLimits(budget, wait_s, max_waiting), self.measure)


async def ask(residents: Residents[Model], name: str) -> str:
    async with residents.using(version(name)) as model:
        return model.name


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_was_not_used_longest_makes_room() -> None:
    memory = Memory({"a": 40, "b": 40, "c": 40})
    residents = memory.residents(100)
    for name in ("a", "b", "a", "c", "a"):
        assert await ask(residents, name) == name
    assert memory.loads == ["a", "b", "c"]
    assert memory.names == ["a", "c"]
    assert residents.occupancy.held_bytes == 80
    assert (residents.occupancy.loads, residents.occupancy.evictions) == (3, 1)


async def test_ten_models_behind_a_budget_for_four_never_exceed_it() -> None:
    memory = Memory({f"m{index}": 25 for index in range(10)})
    residents = memory.residents(100)

    async def caller(first: int) -> None:
        for step in range(50):
            name = f"m{(first + 3 * step) % 10}"
            async with residents.using(version(name)) as model:
                assert model.name == name
                seen = residents.occupancy
                assert seen.models == seen.loads - seen.evictions
                await asyncio.sleep(0)

    await asyncio.gather(*(caller(first) for first in range(8)))
    assert memory.most <= 100
    assert residents.occupancy.waiting == 0


async def test_a_model_is_let_go_after_it_has_answered_and_not_before() -> None:
    memory = Memory({"a": 60, "b": 60})
    residents = memory.residents(100)
    async with residents.using(version("a")):
        waiting = asyncio.ensure_future(ask(residents, "b"))
        # The next call for what is there does not wait behind the one for what is not.
        assert await ask(residents, "a") == "a"
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert memory.names == ["a"]
    assert await waiting == "b"
    assert memory.names == ["b"]


async def test_a_model_that_is_used_without_a_pause_keeps_no_other_out() -> None:
    memory = Memory({"hot": 60, "cold": 60})
    residents = memory.residents(100)
    answered = 0

    async def hammer() -> None:
        nonlocal answered
        while True:
            async with residents.using(version("hot")):
                answered += 1
                await asyncio.sleep(0.01)

    clients = [asyncio.ensure_future(hammer()) for _ in range(4)]
    await until(lambda: answered > 10)
    assert await ask(residents, "cold") == "cold"
    before = answered
    await until(lambda: answered > before + 10)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert memory.most <= 100


async def test_calls_for_the_same_model_load_it_once() -> None:
    memory = Memory({"a": 10})
    residents = memory.residents(100)
    assert await asyncio.gather(*(ask(residents, "a") for _ in range(20))) == ["a"] * 20
    assert memory.loads == ["a"]


async def test_two_models_that_do_not_fit_together_both_answer() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100)
    calls = [ask(residents, name) for _ in range(10) for name in ("a", "b")]
    assert await asyncio.gather(*calls) == ["a", "b"] * 10
    assert memory.most <= 100


async def test_others_answer_while_one_is_loaded() -> None:
    memory = Memory({"a": 40, "b": 40})
    residents = memory.residents(100)
    await ask(residents, "a")
    memory.gate.clear()
    waiting = asyncio.ensure_future(ask(residents, "b"))
    await until(lambda: residents.occupancy.waiting == 1)
    assert [await ask(residents, "a") for _ in range(50)] == ["a"] * 50
    assert not waiting.done()
    memory.gate.set()
    assert await waiting == "b"


async def test_too_many_that_wait_are_told_to_come_again() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100, max_waiting=2)
    async with residents.using(version("a")):
        waiting = [asyncio.ensure_future(ask(residents, "b")) for _ in range(2)]
        await until(lambda: residents.occupancy.waiting == 2)
        with pytest.raises(NoRoomError) as refused:
            await ask(residents, "b")
        assert refused.value.retry_after_s is not None
    assert await asyncio.gather(*waiting) == ["b", "b"]


async def test_nobody_waits_longer_than_is_allowed() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100, wait_s=0.05)
    async with residents.using(version("a")):
        with pytest.raises(NoRoomError, match=r"within 0\.05 s"):
            await ask(residents, "b")
    assert residents.occupancy.waiting == 0
    assert await ask(residents, "a") == "a"


@pytest.mark.parametrize("file_share", [1.0, 0.1], ids=["file", "memory"])
async def test_a_model_larger_than_the_budget_is_refused_and_lets_nothing_go(file_share: float) -> None:
    memory = Memory({"large": 101, "small": 10}, file_share)
    residents = memory.residents(100)
    for _ in range(2):
        with pytest.raises(ModelTooLargeError, match="budget"):
            await ask(residents, "large")
        gc.collect()
        assert "large" not in memory.names
        assert await ask(residents, "small") == "small"
    # Once it was measured twice it is not loaded again.
    assert memory.loads.count("large") <= 2
    assert memory.loads.count("small") == 1


async def test_what_else_grew_during_one_load_refuses_no_model() -> None:
    memory = Memory({"a": 30})
    grown = iter([0, 500])

    async def measure() -> int:
        # After the first load the process has grown by more than the model, and stays so.
        return memory.used + next(grown, 500)

    residents = Residents(memory.find, ResidentLimits(100, 5.0, 64), measure)
    assert await ask(residents, "a") == "a"
    assert memory.loads == ["a", "a"]
    assert residents.occupancy.held_bytes == 30


async def test_what_was_measured_counts_and_not_what_was_guessed() -> None:
    memory = Memory({"a": 30, "b": 30, "c": 30}, file_share=1.0)
    residents = memory.residents(100)
    for name in ("a", "b", "c", "a", "b", "c"):
        await ask(residents, name)
    # For the first c as much room was made as twice its file; the second time it is known what each takes.
    assert memory.loads == ["a", "b", "c", "a"]
    assert residents.occupancy.held_bytes == 90


async def test_pinned_models_stay() -> None:
    memory = Memory({"a": 40, "b": 40, "c": 40, "d": 61})
    residents = memory.residents(100)
    everything = {version(name) for name in memory.sizes}
    await residents.arrange(everything, {version("a")})
    for name in ("a", "b", "c", "b", "c"):
        assert await ask(residents, name) == name
    assert memory.loads.count("a") == 1
    with pytest.raises(ModelTooLargeError, match="pinned models take 40"):
        await ask(residents, "d")
    assert memory.names[0] == "a"
    await residents.arrange(everything, set())
    assert await ask(residents, "d") == "d"
    assert memory.names == ["d"]


async def test_what_no_deployment_needs_is_let_go_after_it_has_answered() -> None:
    memory = Memory({"a": 10, "b": 10})
    residents = memory.residents(100)
    await ask(residents, "b")
    async with residents.using(version("a")) as model:
        await residents.arrange(set(), set())
        assert memory.names == ["a"]
        assert model.name == "a"
    del model
    await residents.arrange(set(), set())
    assert memory.names == []
    # A front that has just found out of a version may be later than its first call.
    assert await ask(residents, "a") == "a"


async def test_a_model_that_cannot_be_loaded_raises_its_own_error_and_the_next_is_served() -> None:
    memory = Memory({"a": 10})
    residents = memory.residents(100)
    with pytest.raises(KeyError):
        await ask(residents, "unknown")
    assert await ask(residents, "a") == "a"


async def test_a_caller_who_gives_up_leaves_the_others_waiting() -> None:
    memory = Memory({"a": 100, "b": 100})
    residents = memory.residents(100)
    async with residents.using(version("a")):
        impatient = asyncio.ensure_future(ask(residents, "b"))
        patient = asyncio.ensure_future(ask(residents, "b"))
        await asyncio.sleep(0)
        impatient.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await impatient
    assert await patient == "b"
    assert residents.occupancy.waiting == 0
