"""Deployments through the front door of the use cases, with the world in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from enxerto.inference.domain import Deployment, DeploymentSpec, State, TrafficShare
from enxerto.inference.errors import (
    DeploymentChangedError,
    DeploymentDeletingError,
    DeploymentNotFoundError,
    DeploymentNotReadyError,
    ItemsRefusedError,
    ReplicasUnavailableError,
    VersionNotFoundError,
    VersionNotServableError,
)
from enxerto.inference.service import SpecChange
from enxerto.kernel.errors import UnavailableError
from enxerto.kernel.names import DeploymentName, VersionReference
from enxerto.vision.specs import Task
from fakes.inference_stack import NAME, World, answer
from fakes.inference_world import BAD_IMAGE


@pytest.fixture
def world() -> World:
    return World()


async def test_a_deployment_becomes_ready_and_answers(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    assert await world.state() is State.READY
    assert await world.answer() == 1
    assert world.meter.states == {State.READY: 1}


async def test_until_it_is_up_it_is_not_ready_and_not_missing(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.slow.add(one)
    await world.deploy(world.registry.point("production", one))
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    with pytest.raises(DeploymentNotFoundError):
        world.front.predictions.serving(DeploymentName("default", "other"))


async def test_after_a_restart_nothing_is_missing_until_the_database_has_said_so(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.start()
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    world.store.away = True
    with pytest.raises(UnavailableError):
        await world.tick(1)
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    world.store.away = False
    await world.tick(1)
    assert await world.answer() == 1
    with pytest.raises(DeploymentNotFoundError):
        world.front.predictions.serving(DeploymentName("default", "other"))


async def test_what_was_just_created_is_not_missing_while_a_tick_waits(world: World) -> None:
    one = world.registry.add(1)
    await world.tick(1)
    read = world.store.all

    async def read_and_wait() -> Sequence[Deployment]:
        found = await read()
        await world.front.deployments.create(NAME, DeploymentSpec(world.registry.point("production", one)), "")
        return found

    world.store.all = read_and_wait
    await world.tick(1)
    world.store.all = read
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    await world.store.remove(NAME)
    await world.tick(1)
    with pytest.raises(DeploymentNotFoundError):
        await world.answer()


@pytest.mark.parametrize("reference", ["7", "staging"])
async def test_what_is_missing_cannot_be_deployed(world: World, reference: str) -> None:
    world.registry.add(1)
    with pytest.raises(VersionNotFoundError):
        await world.deploy(VersionReference("default", "pets", reference))


async def test_what_is_quarantined_cannot_be_deployed(world: World) -> None:
    world.registry.quarantined.add(world.registry.add(1))
    with pytest.raises(VersionNotServableError):
        await world.deploy(VersionReference("default", "pets", "1"))


async def test_an_alias_is_followed_and_the_old_version_goes_after_its_requests(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.replicas.gate.clear()
    old_request = asyncio.ensure_future(world.answer())
    await asyncio.sleep(0)
    world.registry.point("production", two)
    ticking = asyncio.ensure_future(world.tick())
    await asyncio.sleep(0.01)
    # The warm-up of the new version waits at the gate, so the old one still takes requests.
    assert world.front.predictions.serving(NAME).name == one
    world.replicas.gate.set()
    await ticking
    assert await old_request == 1
    assert await world.answer() == 2
    await world.tick()
    assert {application.version for application in world.cluster.running.values()} == {two}
    assert world.meter.counts["switched"] == 1


async def test_a_version_that_fails_leaves_the_old_one_and_shows(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.cluster.broken.add(two)
    world.registry.point("production", two)
    await world.tick()
    deployment = await world.store.get(NAME)
    assert (deployment.state, deployment.serving, deployment.target) == (State.READY, one, two)
    assert deployment.fault is not None
    assert "out of luck" in deployment.fault.message
    assert await world.answer() == 1
    assert world.meter.counts["failed"] == 1
    world.registry.point("production", world.registry.add(3))
    await world.tick()
    deployment = await world.store.get(NAME)
    assert deployment.fault is None
    assert await world.answer() == 3


async def test_a_first_version_that_fails_is_tried_again_after_an_update(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.broken.add(one)
    await world.deploy(world.registry.point("production", one))
    assert await world.state() is State.FAILED
    world.cluster.broken.clear()
    await world.front.deployments.update(NAME, SpecChange(labels={"try": "again"}), "")
    await world.tick()
    assert await world.state() is State.READY


async def test_a_version_that_never_comes_up_fails_in_time(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.slow.add(one)
    await world.deploy(world.registry.point("production", one))
    await asyncio.sleep(0.25)
    await world.tick()
    assert await world.state() is State.FAILED


async def test_an_alias_that_vanishes_shows_and_the_version_serves_on(world: World) -> None:
    reference = world.registry.point("production", world.registry.add(1))
    await world.deploy(reference)
    del world.registry.aliases[reference]
    await world.tick()
    deployment = await world.store.get(NAME)
    assert deployment.fault is not None
    assert deployment.fault.reason == "VERSION_NOT_FOUND"
    assert await world.answer() == 1
    world.registry.point("production", world.registry.add(1))
    await world.tick()
    deployment = await world.store.get(NAME)
    assert deployment.fault is None
    assert deployment.state is State.READY


async def test_every_target_that_cannot_be_served_is_counted_once(world: World) -> None:
    one, two, three = (world.registry.add(number) for number in (1, 2, 3))
    await world.deploy(world.registry.point("production", one))
    for count, quarantined in enumerate((two, three), 1):
        world.registry.quarantined.add(quarantined)
        world.registry.point("production", quarantined)
        await world.tick(5)
        assert world.meter.counts["failed"] == count
    reference = world.registry.point("production", one)
    await world.tick()
    assert (await world.deployment()).fault is None
    del world.registry.aliases[reference]
    await world.tick()
    world.start()
    await world.tick()
    assert world.meter.counts["failed"] == 3
    assert await world.answer() == 1


async def test_a_target_for_another_task_is_counted(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    world.registry.versions[two] = replace(world.registry.versions[two], task=Task.STYLE)
    candidate = world.registry.point("candidate", one)
    await world.deploy(world.registry.point("production", one), traffic=(TrafficShare(candidate, 10),))
    world.registry.point("candidate", two)
    await world.tick(5)
    (companion,) = (await world.deployment()).companions
    assert companion.fault is not None
    assert companion.fault.reason == "TASK_MISMATCH"
    assert world.meter.counts["failed"] == 1


async def test_a_restart_of_the_front_finds_the_deployment(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.start()
    await world.tick(1)
    assert await world.answer() == 1


async def test_a_restart_of_the_front_needs_no_registry(world: World) -> None:
    canary = world.registry.point("candidate", world.registry.add(2))
    traffic = (TrafficShare(canary, 50),)
    await world.deploy(world.registry.point("production", world.registry.add(1)), traffic=traffic)
    world.registry.away = True
    world.start()
    await world.tick(1)
    assert set(await world.shares(50)) == {1, 2}
    deployment = await world.deployment()
    assert (deployment.state, deployment.fault) == (State.READY, None)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_version_that_may_not_be_served_any_more_serves_on_after_a_restart(world: World, lost: bool) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one))
    if lost:
        del world.registry.versions[one]
    else:
        world.registry.quarantined.add(one)
    await world.tick()
    world.start()
    await world.tick()
    assert await world.answer() == 1
    deployment = await world.deployment()
    assert deployment.state is State.READY
    assert deployment.fault is not None


async def test_a_new_version_is_not_served_by_what_was_known_of_it(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    await world.tick()
    world.registry.quarantined.add(one)
    world.registry.point("production", one)
    await world.tick()
    deployment = await world.deployment()
    assert (deployment.serving, deployment.target) == (two, None)


async def test_a_restart_of_the_cluster_is_repaired(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.cluster.forget()
    await world.tick()
    assert await world.answer() == 1
    assert await world.state() is State.READY


async def test_without_replicas_it_is_unavailable_and_not_ready(world: World) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one))
    world.cluster.slow.add(one)
    await world.tick()
    assert await world.state() is State.DEPLOYING
    with pytest.raises(DeploymentNotReadyError):
        await world.answer()
    world.cluster.slow.clear()
    await world.tick()
    assert await world.state() is State.READY


async def test_the_registry_may_be_away(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.registry.away = True
    await world.tick()
    assert await world.answer() == 1
    assert await world.state() is State.READY


async def test_a_dead_replica_is_passed_over_once(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), replicas=2)
    first = sorted(end.address for end in world.replicas.kept)[0]
    world.replicas.dead.add(first)
    assert [await world.answer() for _ in range(4)] == [1] * 4
    assert world.meter.counts["replica_failed"] > 0


async def test_calls_that_fail_together_do_not_send_each_other_to_the_dead_replica(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), replicas=2)
    world.replicas.dead.add(sorted(end.address for end in world.replicas.kept)[0])
    assert await asyncio.gather(*(world.answer() for _ in range(40))) == [1] * 40


async def test_when_all_replicas_are_dead_the_caller_is_told_to_retry(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.replicas.dead |= {end.address for end in world.replicas.kept}
    with pytest.raises(ReplicasUnavailableError) as refusal:
        await world.answer()
    assert refusal.value.retry_after_s > 0


async def test_bad_images_are_all_named(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    with pytest.raises(ItemsRefusedError) as refusal:
        await answer(world.front, b"good", BAD_IMAGE, b"good", BAD_IMAGE)
    assert [violation.field for violation in refusal.value.violations] == ["images[1].content", "images[3].content"]


async def test_another_version_than_the_one_asked_for_is_not_found(world: World) -> None:
    world.registry.add(2)
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    assert world.front.predictions.serving(NAME, 1).name.number == 1
    with pytest.raises(VersionNotFoundError):
        world.front.predictions.serving(NAME, 2)


async def test_a_lost_update_is_refused_and_progress_is_none(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    etag = (await world.store.get(NAME)).etag
    world.registry.point("production", world.registry.add(2))
    await world.tick()
    await world.front.deployments.update(NAME, SpecChange(replicas=2), etag)
    with pytest.raises(DeploymentChangedError):
        await world.front.deployments.update(NAME, SpecChange(replicas=3), etag)
    await world.tick()
    assert len(world.replicas.kept) == 2


async def test_a_deleted_deployment_is_gone_with_its_application(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    await world.front.deployments.delete(NAME, "")
    await world.tick(4)
    assert not world.cluster.running
    with pytest.raises(DeploymentNotFoundError):
        await world.front.deployments.get(NAME)
    with pytest.raises(DeploymentNotFoundError):
        await world.answer()


async def test_a_deployment_that_is_being_deleted_takes_no_change(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    await world.front.deployments.delete(NAME, "")
    before = await world.deployment()
    with pytest.raises(DeploymentDeletingError):
        await world.front.deployments.update(NAME, SpecChange(replicas=2), "")
    await world.front.deployments.delete(NAME, "")
    assert await world.deployment() == before


async def test_an_update_during_a_tick_takes_nothing_down(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    world.store.before_replace = lambda: world.front.deployments.update(NAME, SpecChange(labels={"a": "b"}), "")
    await world.tick(1)
    assert any(application.version == one for application in world.cluster.running.values())
    assert await world.answer() in {1, 2}
    await world.tick()
    assert await world.answer() == 2
    assert (await world.store.get(NAME)).spec.labels == {"a": "b"}
