"""A deployment whose requests are split between versions."""

import asyncio
from dataclasses import replace

import pytest

from enxerto.inference.domain import DeploymentSpec, FaultKind, ShadowShare, State, TrafficShare, place
from enxerto.inference.errors import DeploymentNotFoundError, TaskMismatchError, VersionNotFoundError
from enxerto.inference.service import SpecChange
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from enxerto.vision.specs import Task
from fakes.inference_stack import NAME, World, answer
from fakes.tiny_onnx import TinyDetector

KEYS = [f"user-{number}" for number in range(4000)]


@pytest.fixture
def world() -> World:
    return World()


def share(percent: int, version: str | int = "candidate", model: str = "pets") -> TrafficShare:
    return TrafficShare(VersionReference("default", model, str(version)), percent)


async def split(world: World, percent: int = 20) -> None:
    """Version 1 as production, and version 2 as candidate with its share."""
    world.registry.point("candidate", world.registry.add(2))
    await world.deploy(world.registry.point("production", world.registry.add(1)), traffic=(share(percent),))


async def test_a_canary_gets_its_share(world: World) -> None:
    await split(world, 20)
    shares = await world.shares(2000)
    assert set(shares) == {1, 2}
    # Six standard deviations of 2,000 draws.
    assert shares[2] == pytest.approx(0.2, abs=0.054)


@pytest.mark.parametrize("percents", [(1,), (30,), (99,), (10, 25, 40)])
def test_keys_are_placed_by_the_shares(percents: tuple[int, ...]) -> None:
    shares = [(f"version-{index}", percent) for index, percent in enumerate(percents)]
    placed = [place("a", key, shares) for key in KEYS]
    assert placed == [place("a", key, shares) for key in KEYS]
    for index, percent in enumerate(percents):
        assert placed.count(index) / len(KEYS) == pytest.approx(percent / 100, abs=0.048)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (10, 50), (50, 99)])
def test_a_key_stays_while_its_share_grows(before: int, after: int) -> None:
    for key in KEYS:
        first, then = place("a", key, [("v", before)]), place("a", key, [("v", after)])
        assert first is None or then == first
    # With another version beside it as well: none leaves the one that grows.
    grown = [
        (place("a", key, [("v", before), ("w", 1)]), place("a", key, [("v", after - 1), ("w", 1)])) for key in KEYS
    ]
    assert all(then == 0 for first, then in grown if first == 0)


async def test_the_same_key_gets_the_same_version_after_a_restart_too(world: World) -> None:
    await split(world, 50)
    first = [await world.answer(sticky_key=key) for key in KEYS[:40]]
    assert set(first) == {1, 2}
    assert [await world.answer(sticky_key=key) for key in KEYS[:40]] == first
    world.start()
    await world.tick(1)
    assert [await world.answer(sticky_key=key) for key in KEYS[:40]] == first


async def test_an_alias_of_a_canary_is_followed_and_its_keys_stay(world: World) -> None:
    await split(world, 50)
    before = [await world.answer(sticky_key=key) for key in KEYS[:40]]
    world.registry.point("candidate", world.registry.add(3))
    await world.tick()
    after = [await world.answer(sticky_key=key) for key in KEYS[:40]]
    assert [3 if number == 2 else number for number in before] == after
    await world.tick()
    assert sorted(app.version.number for app in world.cluster.running.values()) == [1, 3]


async def test_a_version_is_reached_by_its_number_whatever_its_share(world: World) -> None:
    await split(world, 1)
    assert [await world.answer(wanted=2) for _ in range(5)] == [2] * 5
    assert [await world.answer(wanted=1) for _ in range(5)] == [1] * 5
    assert world.front.predictions.ready(NAME, 2)
    assert not world.front.predictions.ready(NAME, 3)
    with pytest.raises(VersionNotFoundError):
        await world.answer(wanted=3)


async def test_a_canarys_alias_means_what_answers_while_it_moves(world: World) -> None:
    await split(world, 20)
    two = VersionName("default", "pets", 2)
    three = world.registry.add(3)
    world.cluster.broken.add(three)
    world.registry.point("candidate", three)
    await world.tick()
    assert await world.front.deployments.version_of(NAME, "candidate") == two
    assert await world.answer(wanted=two) == 2
    world.cluster.broken.clear()
    await world.update(labels={"try": "again"})
    assert await world.front.deployments.version_of(NAME, "candidate") == three


async def test_the_aliases_of_a_deployment_that_answers_are_known_without_asking(world: World) -> None:
    await split(world, 20)
    await world.update(shadow=ShadowShare(world.registry.point("next", world.registry.add(3)), 10))
    world.store.away = world.registry.away = True
    meanings = [await world.front.deployments.version_of(NAME, alias) for alias in ("production", "candidate", "next")]
    assert meanings == [None, VersionName("default", "pets", 2), VersionName("default", "pets", 3)]


async def test_a_canarys_alias_means_the_new_version_as_soon_as_that_answers(world: World) -> None:
    await split(world, 20)
    three = world.registry.add(3)
    world.cluster.slow.add(three)
    world.registry.point("candidate", three)
    await world.tick()
    answers = []

    async def ask() -> None:
        wanted = await world.front.deployments.version_of(NAME, "candidate")
        answers.append(await world.answer(wanted=wanted))

    # The requests have moved when that is written.
    world.store.before_replace = ask
    world.cluster.slow.clear()
    await world.tick()
    assert answers == [3]


async def test_an_alias_is_looked_up_where_nothing_is_known_of_it_yet(world: World) -> None:
    production = world.registry.point("production", world.registry.add(1))
    await world.front.deployments.create(NAME, DeploymentSpec(production), "")
    assert await world.front.deployments.version_of(NAME, "production") is None
    await world.tick()
    staging = world.registry.point("staging", world.registry.add(2))
    assert await world.front.deployments.version_of(NAME, "staging") == VersionName("default", "pets", 2)
    await world.front.deployments.update(NAME, SpecChange(model_version=staging), "")
    assert await world.front.deployments.version_of(NAME, "staging") is None
    with pytest.raises(DeploymentNotFoundError):
        await world.front.deployments.version_of(DeploymentName("default", "others"), "production")


async def test_another_models_version_of_the_same_number_is_not_what_is_wanted(world: World) -> None:
    await split(world, 20)
    stranger = VersionName("default", "others", 2)
    assert not world.front.predictions.ready(NAME, stranger)
    with pytest.raises(VersionNotFoundError, match="others/versions/2"):
        await world.answer(wanted=stranger)


async def test_a_canary_that_does_not_come_up_gets_nothing_and_shows(world: World) -> None:
    two = world.registry.add(2)
    world.cluster.broken.add(two)
    await split(world, 90)
    assert await world.shares(100) == {1: 1.0}
    deployment = await world.deployment()
    assert deployment.state is State.READY
    assert deployment.fault is None
    rollout = deployment.companions[0]
    assert (rollout.serving, rollout.target) == (None, two)
    assert rollout.fault is not None
    assert rollout.fault.kind is FaultKind.FAILED_PRECONDITION
    assert "out of luck" in rollout.fault.message
    assert world.meter.counts["failed"] == 1
    world.cluster.broken.clear()
    await world.update(labels={"try": "again"})
    assert set(await world.shares(100)) == {1, 2}
    assert (await world.deployment()).companions[0].fault is None


async def test_shares_change_and_go_without_a_failed_request(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.registry.point("candidate", world.registry.add(2))
    stop = asyncio.Event()
    answered: list[int] = []

    async def ask() -> None:
        while not stop.is_set():
            answered.append(await world.answer())
            await asyncio.sleep(0)

    asking = [asyncio.ensure_future(ask()) for _ in range(4)]
    for percent in (1, 50, 99):
        await world.update(traffic=(share(percent),))
    seen = len(answered)
    await asyncio.sleep(0.02)
    assert 2 in answered[seen:]
    await world.update(traffic=())
    seen = len(answered)
    await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*asking)
    assert set(answered[seen:]) == {1}
    await world.tick()
    assert [app.version.number for app in world.cluster.running.values()] == [1]


async def test_a_canary_that_becomes_the_main_version_is_not_loaded_again(world: World) -> None:
    await split(world, 20)
    calls = len(world.replicas.calls)
    await world.update(model_version=VersionReference("default", "pets", "candidate"), traffic=())
    assert await world.shares(50) == {2: 1.0}
    assert len(world.replicas.calls) == calls + 50
    await world.tick()
    assert [app.version.number for app in world.cluster.running.values()] == [2]


async def test_a_canary_has_replicas_by_its_share_and_all_of_them_before_it_takes_over(world: World) -> None:
    world.registry.point("candidate", world.registry.add(2))
    production = world.registry.point("production", world.registry.add(1))
    await world.deploy(production, replicas=4, traffic=(share(30),))
    sizes = {app.version.number: app.scale.replicas for app in world.cluster.running.values()}
    assert sizes == {1: 4, 2: 2}
    world.registry.point("production", VersionName("default", "pets", 2))
    await world.tick()
    sizes = {app.version.number: app.scale.replicas for app in world.cluster.running.values()}
    assert sizes == {2: 4}
    assert await world.shares(50) == {2: 1.0}


async def test_a_canary_that_dies_leaves_its_requests_to_the_main_version(world: World) -> None:
    await split(world, 99)
    world.replicas.dead |= {end.address for end in world.replicas.kept if ".v2" in end.address}
    assert await world.shares(50) == {1: 1.0}
    world.cluster.slow.add(VersionName("default", "pets", 2))
    await world.tick()
    assert await world.shares(50) == {1: 1.0}
    assert await world.state() is State.READY


async def test_a_canary_of_another_task_is_refused(world: World) -> None:
    world.registry.add_tiny(1, TinyDetector(), "boxes")
    reference = world.registry.point("production", world.registry.add(1))
    with pytest.raises(TaskMismatchError):
        await world.deploy(reference, traffic=(share(5, 1, "boxes"),))
    await world.deploy(reference)
    with pytest.raises(TaskMismatchError):
        await world.update(traffic=(share(5, 1, "boxes"),))


async def test_an_alias_that_moves_to_another_task_shows_and_moves_nothing(world: World) -> None:
    await split(world, 50)
    boxes = world.registry.add_tiny(7, TinyDetector(), "boxes")
    world.registry.aliases[VersionReference("default", "pets", "candidate")] = boxes
    await world.tick()
    assert set(await world.shares(50)) == {1, 2}
    rollout = (await world.deployment()).companions[0]
    assert rollout.fault is not None
    assert rollout.fault.reason == "TASK_MISMATCH"


@pytest.mark.parametrize(
    ("traffic", "fields"),
    [
        ((share(60), share(40, 2)), ["deployment.traffic"]),
        ((share(1), share(1)), ["deployment.traffic[1].model_version"]),
        ((share(1, "production"),), ["deployment.traffic[0].model_version"]),
    ],
)
async def test_shares_that_do_not_go_together_are_named(
    world: World, traffic: tuple[TrafficShare, ...], fields: list[str]
) -> None:
    await split(world)
    with pytest.raises(InvalidArgumentError) as refusal:
        await world.update(traffic=traffic)
    assert [violation.field for violation in refusal.value.violations] == fields


async def test_an_update_while_a_canary_comes_up_is_kept(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.registry.point("candidate", world.registry.add(2))
    await world.front.deployments.update(NAME, SpecChange(traffic=(share(50),)), "")
    world.store.before_replace = lambda: world.front.deployments.update(NAME, SpecChange(traffic=(share(90),)), "")
    await world.tick()
    deployment = await world.deployment()
    assert deployment.spec.traffic == (share(90),)
    assert deployment.companions[0].serving == VersionName("default", "pets", 2)
    assert (await world.shares(400))[2] > 0.75


async def test_a_slow_trial_keeps_no_other_version_waiting() -> None:
    world = World(bring_up_s=30)
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    world.registry.point("candidate", world.registry.add(2))
    await world.front.deployments.update(NAME, SpecChange(traffic=(share(50),)), "")
    world.replicas.gate.clear()
    ticking = asyncio.ensure_future(world.tick(1))
    await asyncio.wait_for(ticking, 5)
    assert (await world.deployment()).companions[0].serving is None
    world.replicas.gate.set()
    await world.tick()
    assert set(await world.shares(50)) == {1, 2}
    assert await answer(world.front, b"x", wanted=2) == 2


async def tasks_of_two_kinds(world: World) -> None:
    """Version 1 serves, with version 2 as its canary; 3 and 4 are for another task."""
    await split(world)
    for number in (3, 4):
        name = world.registry.add(number, "styles")
        world.registry.versions[name] = replace(world.registry.versions[name], task=Task.STYLE)
        world.registry.point("production" if number == 3 else "candidate", name)


async def test_a_task_changes_together_with_its_canary(world: World) -> None:
    world.bring_up_s = 30
    world.start()
    await tasks_of_two_kinds(world)
    three = VersionName("default", "styles", 3)
    world.cluster.slow.add(three)
    change = {"model_version": VersionReference("default", "styles", "production")}
    await world.update(**change, traffic=(share(50, model="styles"),))
    (canary,) = (await world.deployment()).companions
    assert (canary.serving, canary.fault) == (VersionName("default", "styles", 4), None)
    # It is up before the main version of its task is, and gets nothing until then.
    assert set(await world.shares(50)) == {1}
    world.cluster.slow.clear()
    await world.tick(5)
    assert set(await world.shares(50)) == {3, 4}
    assert (await world.deployment()).companions == (canary,)
    assert world.meter.counts["failed"] == 0


async def test_a_canary_of_another_task_is_tried_again_when_the_main_version_has_that_task(world: World) -> None:
    await tasks_of_two_kinds(world)
    world.registry.point("candidate", VersionName("default", "styles", 4))
    world.registry.aliases[VersionReference("default", "pets", "candidate")] = VersionName("default", "styles", 4)
    await world.tick()
    (canary,) = (await world.deployment()).companions
    assert canary.fault is not None
    assert canary.fault.reason == "TASK_MISMATCH"
    world.registry.aliases[VersionReference("default", "pets", "production")] = VersionName("default", "styles", 3)
    await world.tick(5)
    (canary,) = (await world.deployment()).companions
    assert (canary.serving, canary.fault) == (VersionName("default", "styles", 4), None)
    assert set(await world.shares(100)) == {3, 4}
