"""Replicas that join a version that answers get requests once they have passed the steps that the first ones have."""

import pytest

from enxerto.inference.domain import State
from fakes.inference_stack import World, answer
from fakes.inference_world import golden

OLD, NEW = (f"default.pets.default.pets.v1:{number}" for number in (0, 1))


@pytest.fixture
async def world() -> World:
    """A version with golden inputs on one replica."""
    world = World()
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    await world.deploy(world.registry.point("production", one), warm_up_batch_sizes=(1, 5))
    world.replicas.calls.clear()
    return world


async def asked(world: World) -> list[tuple[int, ...]]:
    """What the replica that joins has been sent."""
    return [items for endpoint, _, items in world.replicas.calls if endpoint.address == NEW]


async def answering(world: World) -> set[str]:
    """The replicas that requests go to; three images tell theirs from the trials that go on beside them."""
    assert [await answer(world.front, b"x", b"x", b"x") for _ in range(8)] == [1] * 8
    found = {endpoint.address for endpoint, _, items in world.replicas.calls if items == (3,)}
    world.replicas.calls.clear()
    return found


async def answered_by(world: World, *addresses: str) -> None:
    """Wait until requests go to these replicas."""

    async def so() -> bool:
        return await answering(world) == set(addresses)

    await world.until(so)


async def refused(world: World) -> None:
    """Wait until one more replica was not let in."""
    before = world.meter.counts["replica_failed"]

    async def so() -> bool:
        return world.meter.counts["replica_failed"] > before

    await world.until(so)


async def test_one_that_joins_is_warmed_up_and_answers_the_golden_inputs_first(world: World) -> None:
    await world.update(replicas=2)

    async def so() -> bool:
        return await asked(world) == [(1,), (5,), (2,)]

    await world.until(so)
    await answered_by(world, OLD, NEW)
    await world.tick()
    assert not await asked(world)


async def test_the_others_answer_while_one_is_being_tried(world: World) -> None:
    world.replicas.stuck.add(NEW)
    await world.update(replicas=2)
    await world.tick()
    assert await asked(world) == [(1,)]
    assert await answering(world) == {OLD}
    assert await world.state() is State.READY


async def test_one_that_answers_otherwise_gets_nothing_and_shows(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.replicas.wrong.add(NEW)
    await world.update(replicas=2)
    await refused(world)
    assert await answering(world) == {OLD}
    assert "a replica was not let in" in caplog.messages
    world.replicas.wrong.clear()
    await answered_by(world, OLD, NEW)


async def test_one_that_does_not_answer_yet_is_asked_again(world: World) -> None:
    world.replicas.dead.add(NEW)
    await world.update(replicas=2)
    assert await answering(world) == {OLD}
    world.replicas.dead.clear()
    await answered_by(world, OLD, NEW)


async def test_replicas_answer_at_once_where_there_is_no_other(world: World) -> None:
    await world.update(replicas=2)
    await answered_by(world, OLD, NEW)
    (one,) = world.registry.versions
    world.cluster.slow.add(one)
    await world.tick()
    world.replicas.wrong.add(NEW)
    world.registry.away = True
    world.cluster.slow.clear()
    await world.tick(1)
    assert await world.state() is State.READY


async def test_after_a_restart_a_dead_replica_keeps_nobody_waiting_and_joins_when_it_answers(world: World) -> None:
    await world.update(replicas=2)
    world.replicas.dead.add(OLD)
    world.start()
    await world.tick(1)
    assert await world.state() is State.READY
    assert await answering(world) == {NEW}
    world.replicas.dead.clear()
    await answered_by(world, OLD, NEW)


async def test_a_replica_that_died_before_a_restart_is_let_in_once_it_answers_as_it_should(world: World) -> None:
    await world.update(replicas=2)
    world.replicas.dead.add(NEW)
    world.start()
    await refused(world)
    world.replicas.wrong.add(NEW)
    world.replicas.dead.clear()
    await refused(world)
    await refused(world)
    assert await answering(world) == {OLD}
    assert await world.state() is State.READY


async def test_after_a_restart_nobody_is_kept_waiting_for_golden_inputs(world: World) -> None:
    await world.update(replicas=2)
    (one,) = world.registry.versions
    world.registry.goldens[one] = golden(2)
    world.start()
    await world.tick()
    assert await answering(world) == {OLD, NEW}
