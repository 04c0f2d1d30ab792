"""A version gets requests only when it answers its golden inputs."""

import asyncio

import pytest

from enxerto.inference.domain import State
from enxerto.vision.onnx.golden import Golden
from fakes.inference_stack import NAME, World
from fakes.inference_world import golden


@pytest.fixture
def world() -> World:
    return World()


def address(version: int, replica: int) -> str:
    return f"default.pets.default.pets.v{version}:{replica}"


async def settled(world: World) -> None:
    """Wait until the version was let in or found wanting."""

    async def so() -> bool:
        return await world.state() is not State.DEPLOYING

    await world.until(so)


async def test_a_version_that_answers_as_it_was_registered_is_served(world: World) -> None:
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    await world.deploy(world.registry.point("production", one), replicas=2)
    assert await world.state() is State.READY
    # Every replica was warmed up with one image and asked about the two.
    assert sorted(items for _, _, items in world.replicas.calls) == [(1,), (1,), (2,), (2,)]


@pytest.mark.parametrize(
    ("bad", "reason"), [(golden(1), "GOLDEN_MISMATCH"), (golden(2, side=3), "VERSION_NOT_SERVABLE")]
)
async def test_a_version_that_answers_otherwise_gets_nothing_and_the_old_one_stays(
    world: World, bad: Golden, reason: str
) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    world.registry.goldens |= {one: golden(1), two: bad}
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    for _ in range(5):
        await world.tick(1)
        assert world.front.predictions.ready(NAME)
        assert await world.answer() == 1
    deployment = await world.deployment()
    assert (deployment.state, deployment.serving, deployment.target) == (State.READY, one, two)
    assert deployment.fault is not None
    assert deployment.fault.reason == reason
    assert world.meter.counts["failed"] == 1
    assert {application.version for application in world.cluster.running.values()} == {one}


async def test_the_first_version_is_served_by_the_replicas_that_answer(world: World) -> None:
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    world.replicas.dead.add(address(1, 0))
    await world.deploy(world.registry.point("production", one), replicas=3)
    await settled(world)
    assert await world.state() is State.READY
    assert [await world.answer() for _ in range(9)] == [1] * 9
    used = {endpoint.address for endpoint, _, items in world.replicas.calls if items == (2,)}
    assert used == {address(1, 1), address(1, 2)}


async def test_a_wrong_answer_keeps_a_version_out_whoever_else_is_dead_or_right(world: World) -> None:
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    world.replicas.dead.add(address(1, 0))
    world.replicas.wrong.add(address(1, 1))
    await world.deploy(world.registry.point("production", one), replicas=3)
    await settled(world)
    assert await world.state() is State.FAILED
    assert not world.front.predictions.ready(NAME)
    fault = (await world.deployment()).fault
    assert fault is not None
    assert fault.reason == "GOLDEN_MISMATCH"


async def test_a_version_takes_the_requests_of_another_with_all_of_its_replicas(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    world.bring_up_s = 30
    world.start()
    await world.deploy(world.registry.point("production", one), replicas=2)
    world.replicas.dead.add(address(2, 1))
    world.registry.point("production", two)
    await world.tick()
    assert await world.answer() == 1
    world.replicas.dead.clear()

    async def moved() -> bool:
        return await world.answer() == 2

    await world.until(moved)


async def test_golden_inputs_that_cannot_be_fetched_now_are_asked_for_again(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    world.registry.goldens[two] = golden(2)
    world.bring_up_s = 30
    world.start()
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    world.cluster.slow.add(two)
    await world.tick()
    world.registry.away = True
    world.cluster.slow.clear()
    await world.tick()
    assert await world.answer() == 1
    world.registry.away = False
    await world.tick()
    assert await world.answer() == 2


async def test_a_version_whose_warm_up_never_succeeds_fails_in_time(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    world.replicas.dead.add(address(2, 0))
    deployment = await world.deployment()
    for _ in range(200):
        await world.tick(1)
        deployment = await world.deployment()
        if deployment.fault is not None:
            break
        assert await world.answer() == 1
        await asyncio.sleep(0.01)
    assert deployment.fault is not None
    assert "connection refused" in deployment.fault.message
    assert await world.answer() == 1


async def test_a_version_that_served_is_not_asked_again_after_a_restart(world: World) -> None:
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    await world.deploy(world.registry.point("production", one))
    world.registry.goldens[one] = golden(2)
    world.start()
    await world.tick()
    assert await world.answer() == 1
    assert (await world.deployment()).fault is None
