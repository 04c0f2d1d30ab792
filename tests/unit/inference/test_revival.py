"""What the cluster gave up is started again, and time without the cluster is no version's fault."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import pytest

from enxerto.inference.domain import Application, Placement, Pool, State
from enxerto.inference.errors import DeploymentNotReadyError
from enxerto.inference.service import fleet
from enxerto.kernel.errors import UnavailableError
from fakes.inference_stack import World

HOSTS = [(Placement.DEDICATED, "default.pets.default.pets.v1"), (Placement.SHARED, "pool")]


@pytest.fixture
def world() -> World:
    return World(bring_up_s=0.3)


@pytest.mark.parametrize(("placement", "host"), HOSTS)
async def test_what_served_and_failed_to_start_is_started_again(world: World, placement: Placement, host: str) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), placement=placement)
    world.cluster.forget()
    world.cluster.unstartable.add(host)
    await world.tick(1)
    deployment = await world.deployment()
    assert deployment.state is State.DEPLOYING
    assert deployment.fault is not None
    assert (deployment.fault.reason, "out of disk" in deployment.fault.message) == ("VERSION_FAILED_TO_START", True)
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    world.cluster.unstartable.clear()
    await world.tick()
    assert await world.answer() == 1
    deployment = await world.deployment()
    assert (deployment.state, deployment.fault) == (State.READY, None)


async def test_it_is_started_again_after_a_restart_of_the_front_too(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.cluster.forget()
    world.cluster.unstartable.add(HOSTS[0][1])
    await world.tick(1)
    world.cluster.unstartable.clear()
    world.start()
    await world.tick()
    assert await world.answer() == 1


async def test_it_is_started_again_less_and_less_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(fleet, "_LONGEST_PAUSE_S", 0.08)
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    left_out, apply = [], world.cluster.apply

    async def noted(applications: Sequence[Application | Pool]) -> None:
        if not applications:
            left_out.append(asyncio.get_running_loop().time())
        await apply(applications)

    world.cluster.apply = noted
    world.cluster.forget()
    world.cluster.unstartable.add(HOSTS[0][1])
    async with asyncio.timeout(20):
        while len(left_out) < 5:
            await world.tick(1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(left_out)]
    assert all(pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.08), strict=True))


async def test_a_version_that_is_to_replace_one_that_failed_comes_up(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    two = world.registry.add(2)
    world.cluster.forget()
    world.cluster.unstartable.add(HOSTS[0][1])
    world.cluster.slow.add(two)
    world.registry.point("production", two)
    await world.tick()
    assert (await world.deployment()).fault is None
    world.cluster.slow.clear()
    await world.tick()
    assert await world.answer() == 2


async def test_a_version_that_is_new_to_the_pool_waits_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_FIRST_PAUSE_S", 0.0)
    world.cluster.unstartable.add("pool")
    await world.deploy(world.registry.point("production", world.registry.add(1)), placement=Placement.SHARED)
    assert await world.state() is State.DEPLOYING
    world.cluster.unstartable.clear()
    await world.tick()
    assert await world.answer() == 1


async def test_a_pool_that_never_starts_fails_a_new_version_in_time(world: World) -> None:
    world.cluster.unstartable.add("pool")
    await world.deploy(world.registry.point("production", world.registry.add(1)), placement=Placement.SHARED)
    await asyncio.sleep(0.4)
    await world.tick()
    fault = (await world.deployment()).fault
    assert fault is not None
    assert "out of disk" in fault.message


async def tick_without(world: World, seconds: float) -> None:
    """Tick for a while, with the cluster or the database away."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        with contextlib.suppress(UnavailableError):
            await world.front.reconciler.tick()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("what", ["cluster", "store"])
async def test_an_outage_during_a_rollout_fails_no_version(world: World, what: str, serving: bool) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    if serving:
        await world.deploy(world.registry.point("production", one))
    world.cluster.slow.add(two)
    reference = world.registry.point("production", two)
    if serving:
        await world.tick(1)
    else:
        await world.deploy(reference)
    away = world.cluster if what == "cluster" else world.store
    away.away = True
    await tick_without(world, 0.4)
    away.away = False
    await world.tick(1)
    assert (await world.deployment()).fault is None
    world.cluster.slow.clear()
    await world.tick()
    assert await world.answer() == 2


async def test_a_restart_of_the_cluster_gives_a_version_its_time_again(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.slow.add(one)
    await world.deploy(world.registry.point("production", one))
    for _ in range(4):
        await asyncio.sleep(0.2)
        world.cluster.forget()
        await world.tick(1)
    assert await world.state() is State.DEPLOYING
    await asyncio.sleep(0.4)
    await world.tick()
    assert await world.state() is State.FAILED
