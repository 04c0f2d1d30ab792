"""What references lead to, with the registry in memory: what is asked of it, and what deployments show."""

import dataclasses

import pytest

from enxerto.inference.domain import DeploymentSpec, FaultKind, State, TrafficShare
from enxerto.kernel.names import DeploymentName, VersionReference
from fakes.inference_stack import NAME, World

COUNT = 20


@pytest.fixture
def world() -> World:
    return World()


async def crowd(world: World) -> list[VersionReference]:
    """As many deployments, each with a model, an alias, and a second version that nothing points to."""
    references = []
    for index in range(COUNT):
        model = f"model-{index}"
        reference = world.registry.point("production", world.registry.add(1, model))
        world.registry.add(2, model)
        await world.front.deployments.create(DeploymentName("default", model), DeploymentSpec(reference, 1), "")
        references.append(reference)
    await world.tick()
    return references


async def asked(world: World, ticks: int = 1) -> dict[str, int]:
    """What so many ticks ask of the registry."""
    world.registry.calls.clear()
    await world.tick(ticks)
    return dict(world.registry.calls)


async def test_many_aliases_are_followed_with_one_question(world: World) -> None:
    references = await crowd(world)
    assert await asked(world, 3) == {"meanings": 3}
    moved = dataclasses.replace(world.registry.aliases[references[3]], number=2)
    world.registry.point("production", moved)
    assert await asked(world) == {"meanings": 1, "resolve": 1}
    await world.tick()
    serving = {one.name.deployment: one.serving for one in await world.store.all()}
    assert serving.pop("model-3") == moved
    assert {version.number for version in serving.values() if version} == {1}
    assert len(serving) == COUNT - 1


async def test_what_no_deployment_means_any_more_is_forgotten(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    await world.deploy(world.registry.point("production", one))
    world.registry.point("production", two)
    await world.tick(3)
    assert await asked(world) == {"meanings": 1}
    world.registry.point("production", one)
    assert await asked(world) == {"meanings": 1, "resolve": 1}
    await world.tick(3)
    assert (await world.deployment()).serving == one


async def test_a_version_that_many_follow_is_read_once(world: World) -> None:
    reference = world.registry.point("production", world.registry.add(1))
    for index in range(COUNT):
        name = DeploymentName("default", f"pets-{index}")
        await world.front.deployments.create(name, DeploymentSpec(reference, 1), "")
    world.start()
    assert await asked(world) == {"meanings": 1, "resolve": 1}


async def test_numbers_are_asked_about_once(world: World) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    canary = TrafficShare(VersionReference("default", "pets", str(two.number)), 10)
    await world.deploy(VersionReference("default", "pets", str(one.number)), traffic=(canary,))
    assert not await asked(world, 3)
    world.start()
    assert await asked(world) == {"meanings": 1, "resolve": 2}
    assert not await asked(world, 3)
    assert await world.state() is State.READY


async def test_an_alias_that_vanishes_is_asked_about_with_the_others(world: World) -> None:
    references = await crowd(world)
    kept = world.registry.aliases.pop(references[0])
    assert await asked(world, 3) == {"meanings": 3}
    deployment = await world.store.get(DeploymentName("default", "model-0"))
    assert deployment.fault is not None
    assert (deployment.fault.kind, deployment.fault.reason) == (FaultKind.NOT_FOUND, "VERSION_NOT_FOUND")
    assert str(references[0]) in deployment.fault.message
    assert (deployment.state, deployment.serving, deployment.target) == (State.READY, kept, None)
    world.registry.point("production", kept)
    await world.tick()
    assert (await world.store.get(DeploymentName("default", "model-0"))).fault is None


async def test_a_version_that_is_ready_no_more_shows_why(world: World) -> None:
    one = world.registry.add(1)
    await world.deploy(world.registry.point("production", one))
    world.registry.quarantined.add(one)
    assert await asked(world) == {"meanings": 1, "resolve": 1}
    fault = (await world.deployment()).fault
    assert fault is not None
    assert (fault.kind, fault.reason) == (FaultKind.FAILED_PRECONDITION, "VERSION_NOT_SERVABLE")
    assert "QUARANTINED" in fault.message
    assert await world.answer() == 1
    world.registry.quarantined.clear()
    await world.tick()
    assert (await world.deployment()).fault is None


async def test_while_the_registry_is_away_everything_stays_as_it_was(world: World) -> None:
    references = await crowd(world)
    before = await world.store.all()
    world.registry.away = True
    del world.registry.aliases[references[0]]
    assert await asked(world, 2) == {"meanings": 2}
    assert await world.store.all() == before


async def test_a_new_version_whose_facts_cannot_be_read_yet_waits(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    two = world.registry.add(2)
    world.registry.unreadable.add(two)
    world.registry.point("production", two)
    await world.tick()
    deployment = await world.store.get(NAME)
    assert (deployment.fault, deployment.target) == (None, deployment.serving)
    world.registry.unreadable.clear()
    await world.tick()
    assert await world.answer() == 2
