"""What a watcher of a deployment sees."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from enxerto.inference.domain import Deployment, State
from enxerto.inference.errors import DeploymentNotFoundError, ServiceStoppingError
from enxerto.inference.service import SpecChange
from fakes.inference_stack import NAME, World

Seen = tuple[Deployment, int]


@pytest.fixture
async def world() -> World:
    world = World()
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    return world


async def following(stream: AsyncIterator[Seen]) -> Seen:
    return await asyncio.wait_for(anext(stream), 10)


async def test_the_state_comes_first_and_then_every_change(world: World) -> None:
    stream = world.front.deployments.watch(NAME, 0)
    first, cursor = await following(stream)
    assert first == await world.deployment()
    await world.front.deployments.update(NAME, SpecChange(labels={"a": "b"}), "")
    second, later = await following(stream)
    assert second.spec.labels == {"a": "b"}
    assert later != cursor
    world.registry.point("production", world.registry.add(2))
    ticking = asyncio.ensure_future(world.tick())
    while second.serving is None or second.serving.number != 2:
        second, _ = await following(stream)
    await ticking


async def test_after_a_cursor_only_a_change_is_seen(world: World) -> None:
    _, cursor = await following(world.front.deployments.watch(NAME, 0))
    again = world.front.deployments.watch(NAME, cursor)
    waiting = asyncio.ensure_future(following(again))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await world.front.deployments.update(NAME, SpecChange(replicas=2), "")
    seen, _ = await waiting
    assert seen.spec.replicas == 2
    missed, _ = await following(world.front.deployments.watch(NAME, cursor))
    assert missed.spec.replicas == 2


async def test_a_watch_ends_with_the_deployment(world: World) -> None:
    stream = world.front.deployments.watch(NAME, 0)
    await following(stream)
    await world.front.deployments.delete(NAME, "")
    last, _ = await following(stream)
    assert last.state is State.DELETING
    await world.tick(4)
    with pytest.raises(StopAsyncIteration):
        await following(stream)
    with pytest.raises(DeploymentNotFoundError):
        await following(world.front.deployments.watch(NAME, 0))


async def test_a_draining_process_ends_its_watches(world: World) -> None:
    stream = world.front.deployments.watch(NAME, 0)
    await following(stream)
    waiting = asyncio.ensure_future(following(stream))
    await asyncio.sleep(0.01)
    world.front.on_drain()
    with pytest.raises(ServiceStoppingError):
        await waiting
