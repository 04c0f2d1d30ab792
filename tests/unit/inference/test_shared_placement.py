"""Deployments that share replicas: through the front door of the use cases, with the world in memory."""

import asyncio

import pytest

from enxerto.inference.domain import (
    Autoscaling,
    DeploymentSpec,
    Device,
    Occupancy,
    Placement,
    Pool,
    State,
    TrafficShare,
)
from enxerto.inference.errors import ModelTooLargeError, NoRoomError, VersionNotServableError
from enxerto.inference.service import SpecChange
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from fakes.inference_stack import NAME, World

SHARED = {"placement": Placement.SHARED}


@pytest.fixture
def world() -> World:
    return World()


async def test_a_shared_deployment_answers_from_the_pool_which_ends_with_it(world: World) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one), **SHARED)
    assert await world.answer() == 1
    assert [type(one) for one in world.cluster.running.values()] == [Pool]
    assert {versions for versions, _ in world.replicas.arranged.values()} == {frozenset({one})}
    await world.front.deployments.delete(NAME, "")
    await world.tick()
    assert not world.cluster.running
    assert await world.store.all() == []


async def test_without_a_shared_deployment_there_is_no_pool(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    assert not any(isinstance(one, Pool) for one in world.cluster.running.values())
    assert not world.replicas.arranged


async def test_an_alias_moves_within_the_pool_after_the_old_versions_requests(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one), **SHARED)
    world.replicas.gate.clear()
    old_request = asyncio.ensure_future(world.answer())
    await asyncio.sleep(0)
    world.registry.point("production", two)
    ticking = asyncio.ensure_future(world.tick(1))
    await asyncio.sleep(0.01)
    assert world.front.predictions.serving(NAME).name == one
    (arranged,) = world.replicas.arranged.values()
    assert arranged[0] == {one, two}
    world.replicas.gate.set()
    await ticking
    assert await old_request == 1
    await world.tick()
    assert await world.answer() == 2
    (arranged,) = world.replicas.arranged.values()
    assert arranged[0] == {two}
    assert world.meter.counts["switched"] == 1


async def test_shares_of_the_requests_go_to_other_versions_of_the_pool(world: World) -> None:
    world.registry.add(2)
    reference = world.registry.point("production", world.registry.add(1))
    canary = world.registry.point("candidate", VersionName("default", "pets", 2))
    await world.deploy(reference, traffic=(TrafficShare(canary, 30),), **SHARED)
    shares = await world.shares()
    assert shares[2] == pytest.approx(0.3, abs=0.07)
    assert len(world.cluster.running) == 1


async def test_a_deleted_deployment_stays_until_its_requests_have_ended(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), **SHARED)
    world.replicas.gate.clear()
    request = asyncio.ensure_future(world.answer())
    await asyncio.sleep(0)
    await world.front.deployments.delete(NAME, "")
    await world.tick()
    assert (await world.deployment()).state is State.DELETING
    assert world.cluster.running
    world.replicas.gate.set()
    assert await request == 1
    await world.tick()
    assert not world.cluster.running


async def test_a_restart_of_the_front_or_of_the_cluster_finds_it_again(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), **SHARED)
    world.start()
    await world.tick(1)
    assert await world.answer() == 1
    world.cluster.forget()
    await world.tick()
    assert await world.answer() == 1
    assert await world.state() is State.READY


async def test_a_version_is_asked_for_at_as_many_replicas_of_the_pool_as_the_deployment_wants() -> None:
    world = World(pool_replicas=4)
    asked = set()
    for number in range(1, 9):
        world.registry.add(number)
        spec = DeploymentSpec(VersionReference("default", "pets", str(number)), **SHARED)
        await world.front.deployments.create(DeploymentName("default", f"d{number}"), spec, "")
        await world.tick()
        asked.add(world.replicas.calls[-1][0])
    # Models are spread over the pool.
    assert len(asked) > 1
    await world.deploy(world.registry.point("production", world.registry.add(9)), replicas=2, **SHARED)
    world.replicas.calls.clear()
    assert [await world.answer() for _ in range(8)] == [9] * 8
    before = {endpoint for endpoint, _, _ in world.replicas.calls}
    assert len(before) == 2
    # More than there are is all of them.
    await world.update(replicas=64)
    world.replicas.calls.clear()
    assert [await world.answer() for _ in range(8)] == [9] * 8
    assert len({endpoint for endpoint, _, _ in world.replicas.calls}) == 4


async def test_a_model_that_never_fits_fails_its_rollout_for_good(world: World) -> None:
    one = world.registry.add(1)
    world.replicas.refusals[one] = ModelTooLargeError(one, "the model takes 5 bytes of memory, the budget is 4")
    await world.deploy(world.registry.point("production", one), **SHARED)
    fault = (await world.deployment()).fault
    assert await world.state() is State.FAILED
    assert fault is not None
    assert (fault.reason, fault.kind) == ("MODEL_TOO_LARGE", "FAILED_PRECONDITION")
    assert "takes 5 bytes" in fault.message
    assert not world.cluster.running


async def test_a_model_that_finds_no_room_is_tried_again_until_its_time_is_up(world: World) -> None:
    one = world.registry.add(1)
    world.replicas.refusals[one] = NoRoomError(one, "there was no room")
    await world.deploy(world.registry.point("production", one), **SHARED)
    assert await world.state() is State.DEPLOYING
    world.replicas.refusals.clear()
    await world.tick()
    assert await world.state() is State.READY
    two = world.registry.add(2)
    world.replicas.refusals[two] = NoRoomError(two, "there was no room")
    world.registry.point("production", two)
    await world.tick(1)
    await asyncio.sleep(0.25)
    await world.tick()
    fault = (await world.deployment()).fault
    assert fault is not None
    assert fault.reason == "VERSION_FAILED_TO_START"
    assert "there was no room" in fault.message
    assert await world.answer() == 1


async def test_no_room_now_is_the_callers_answer_and_no_other_replica_is_asked(world: World) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one), **SHARED)
    world.replicas.refusals[one] = NoRoomError(one, "other models answer")
    world.replicas.calls.clear()
    with pytest.raises(NoRoomError) as refusal:
        await world.answer()
    assert refusal.value.retry_after_s == 1.0
    assert len(world.replicas.calls) == 1
    assert (world.meter.counts["no_room"], world.meter.counts["replica_failed"]) == (1, 0)


@pytest.mark.parametrize("refusal", [ModelTooLargeError, VersionNotServableError])
async def test_a_canary_that_cannot_be_loaded_any_more_leaves_its_share_to_the_main_version(
    world: World, refusal: type[ModelTooLargeError | VersionNotServableError]
) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    canary = world.registry.point("candidate", two)
    await world.deploy(world.registry.point("production", one), traffic=(TrafficShare(canary, 99),), **SHARED)
    assert 2 in await world.shares(50)
    world.replicas.refusals[two] = refusal(two, "pinned models take the budget")
    assert set(await world.shares(50)) == {1}


async def test_a_canary_without_room_leaves_its_share_to_the_main_version(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    canary = world.registry.point("candidate", two)
    await world.deploy(world.registry.point("production", one), traffic=(TrafficShare(canary, 99),), **SHARED)
    world.replicas.refusals[two] = NoRoomError(two, "other models answer")
    assert [await world.answer() for _ in range(20)] == [1] * 20


async def test_pins_are_told_before_a_version_is_tried_and_taken_back(world: World) -> None:
    one = world.registry.add(1)
    world.replicas.gate.clear()
    deploying = asyncio.ensure_future(world.deploy(world.registry.point("production", one), pinned=True, **SHARED))
    await asyncio.sleep(0.05)
    (arranged,) = world.replicas.arranged.values()
    assert arranged == ({one}, {one})
    assert await world.state() is State.DEPLOYING
    world.replicas.gate.set()
    await deploying
    await world.update(pinned=False)
    (arranged,) = world.replicas.arranged.values()
    assert arranged == ({one}, set())


async def test_what_the_pool_holds_is_counted_over_restarts_of_its_replicas(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), **SHARED)
    (endpoint,) = world.replicas.arranged
    held = [(3, 1), (5, 2), (1, 0)]
    for loads, evictions in held:
        world.replicas.occupancies[endpoint] = Occupancy(2, 700, 1000, loads, evictions, 4)
        await world.tick(2)
    assert world.meter.pool == (2, 700, 1000, 4)
    # The third has started again.
    assert (world.meter.counts["pool_loads"], world.meter.counts["pool_evictions"]) == (6, 2)
    world.replicas.dead.add(endpoint.address)
    await world.tick(1)
    world.replicas.dead.clear()
    await world.tick(1)
    assert world.meter.counts["pool_loads"] == 6


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"autoscaling": Autoscaling(1, 2), **SHARED}, "autoscaling"),
        ({"device": Device.GPU, **SHARED}, "device"),
        ({"pinned": True}, "pinned"),
    ],
)
async def test_what_does_not_go_with_sharing_is_refused(world: World, spec: dict, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        await world.deploy(world.registry.point("production", world.registry.add(1)), **spec)
    assert [violation.field for violation in refusal.value.violations] == [f"deployment.{field}"]


async def test_an_update_keeps_the_placement(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), **SHARED)
    await world.front.deployments.update(NAME, SpecChange(labels={"a": "b"}), "")
    assert (await world.deployment()).spec.placement is Placement.SHARED
