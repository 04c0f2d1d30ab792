"""A version that gets no more requests is kept for those that it has."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from enxerto.inference.domain import PayloadKind, State, TrafficShare
from enxerto.inference.errors import DeploymentNotFoundError
from enxerto.kernel.names import VersionName
from fakes.inference_stack import NAME, World

DAY_S = 86400.0


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """With settings, where a test gives any."""
    return World(**getattr(request, "param", {}))


@pytest.fixture
def held(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[VersionName, asyncio.Event]:
    """Versions whose replicas do not answer images before the event; the tensors of trials are answered."""
    predict, events = world.replicas.predict, dict[VersionName, asyncio.Event]()

    async def wait(endpoint: Any, version: VersionName, payloads: Any, timeout_s: float) -> Any:
        if version in events and payloads[0].kind is PayloadKind.ENCODED:
            world.replicas.calls.append((endpoint, version, ()))
            await events[version].wait()
        return await predict(endpoint, version, payloads, timeout_s)

    monkeypatch.setattr(world.replicas, "predict", wait)
    return events


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the event loop's clock, by which everything that waits is woken."""

    def move(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + seconds)

    return move


def running(world: World) -> set[int]:
    """The numbers of the versions that the cluster is told to run."""
    return {application.version.number for application in world.cluster.running.values()}


def note(monkeypatch: pytest.MonkeyPatch, steps: list[str], place: object, name: str) -> None:
    """Write down every call of a method."""
    method = getattr(place, name)

    async def noted() -> Any:
        steps.append(name)
        return await method()

    monkeypatch.setattr(place, name, noted)


async def wait_for(so: Callable[[], bool]) -> None:
    """Wait until something is so, without a tick."""
    async with asyncio.timeout(20):
        while not so():
            await asyncio.sleep(0.005)


async def only(world: World, *numbers: int) -> None:
    """Wait until no other versions run."""

    async def so() -> bool:
        return running(world) == set(numbers)

    await world.until(so)


async def under_way(
    world: World, held: dict[VersionName, asyncio.Event], version: VersionName, **options: Any
) -> "asyncio.Task[int]":
    """A request with a day of time that waits at a replica of the version."""
    held[version] = asyncio.Event()
    request = asyncio.create_task(world.answer(timeout_s=DAY_S, **options))

    async def arrived() -> bool:
        return any(asked == version and not items for _, asked, items in world.replicas.calls)

    await world.until(arrived)
    return request


async def replaced_at_work(
    world: World, held: dict[VersionName, asyncio.Event]
) -> tuple[VersionName, "asyncio.Task[int]"]:
    """Version 1, after version 2 has taken its place, and the request that it still has."""
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    request = await under_way(world, held, one)
    world.registry.point("production", two)
    await world.tick()
    return one, request


async def test_a_request_is_answered_by_the_version_that_has_it_however_long_it_takes(
    world: World, held: dict[VersionName, asyncio.Event], later: Callable[[float], None]
) -> None:
    one, request = await replaced_at_work(world, held)
    assert await world.answer() == 2
    later(600)
    await world.tick()
    assert running(world) == {1, 2}
    held[one].set()
    assert await request == 1
    await only(world, 2)


async def test_a_version_is_not_kept_for_ever(
    world: World,
    held: dict[VersionName, asyncio.Event],
    later: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, request = await replaced_at_work(world, held)
    later(7200)
    await only(world, 2)
    assert "a version is removed before its requests ended" in caplog.messages
    request.cancel()


@pytest.mark.parametrize("world", [{"alias_poll_s": 0.01, "replica_poll_s": DAY_S}], indirect=True)
async def test_while_requests_end_nobody_looks_at_the_replicas_and_then_the_version_goes(
    world: World, held: dict[VersionName, asyncio.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, request = await replaced_at_work(world, held)
    steps: list[str] = []
    note(monkeypatch, steps, world.store, "all")
    note(monkeypatch, steps, world.cluster, "observe")
    loop = asyncio.create_task(world.front.reconciler.run())
    await wait_for(lambda: steps[-5:] == ["all"] * 5)
    assert running(world) == {1, 2}
    held[one].set()
    assert await request == 1
    await wait_for(lambda: running(world) == {2})
    loop.cancel()


async def test_a_version_that_is_wanted_again_stays_when_its_requests_have_ended(
    world: World, held: dict[VersionName, asyncio.Event]
) -> None:
    one, request = await replaced_at_work(world, held)
    world.registry.point("production", one)
    await world.tick()
    held[one].set()
    assert await request == 1
    await only(world, 1)
    assert await world.answer() == 1


async def test_a_deployment_that_is_deleted_answers_what_it_has(
    world: World, held: dict[VersionName, asyncio.Event]
) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one))
    request = await under_way(world, held, one)
    await world.front.deployments.delete(NAME, "")
    await world.tick()
    with pytest.raises(DeploymentNotFoundError):
        await world.answer()
    assert await world.state() is State.DELETING
    assert running(world) == {1}
    held[one].set()
    assert await request == 1
    await only(world)
    await world.tick()
    assert not await world.store.all()


async def test_a_main_version_is_kept_for_what_its_canary_may_fail_to_answer(
    world: World, held: dict[VersionName, asyncio.Event]
) -> None:
    one, two, three = (world.registry.add(number) for number in (1, 2, 3))
    share = TrafficShare(world.registry.point("candidate", two), 99)
    await world.deploy(world.registry.point("production", one), traffic=(share,))
    answers = {f"user-{number}": await world.answer(sticky_key=f"user-{number}") for number in range(20)}
    key = next(key for key, answered in answers.items() if answered == 2)
    request = await under_way(world, held, two, sticky_key=key)
    world.registry.point("production", three)
    await world.tick()
    assert await world.answer(wanted=three) == 3
    assert running(world) == {1, 2, 3}
    world.replicas.dead.update(end.address for end in world.replicas.kept if ".v2" in end.application)
    held[two].set()
    assert await request == 1
    await only(world, 2, 3)
