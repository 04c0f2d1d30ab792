"""What nobody foresaw of one deployment is its own fault: the others are served, moved and removed as ever."""

import numpy as np
import pytest

from enxerto.inference.domain import Deployment, DeploymentSpec, State
from enxerto.inference.errors import DeploymentNotFoundError
from enxerto.kernel.names import DeploymentName
from enxerto.vision.onnx.golden import Golden
from enxerto.vision.specs import Task
from fakes.inference_stack import World, answer
from fakes.inference_world import golden

GOOD, BAD = DeploymentName("default", "good"), DeploymentName("default", "bad")
TEXTS = Golden(Task.CLASSIFICATION, np.zeros((2, 3, 2, 2), np.uint8), {"probabilities": np.full((2, 3), "x")})


@pytest.fixture
def world() -> World:
    return World(bring_up_s=30)


async def create_beside(world: World) -> None:
    """Two deployments of a version that serves, and one of a version whose trial fails unforeseen."""
    reference = world.registry.point("production", world.registry.add(1))
    await world.front.deployments.create(GOOD, DeploymentSpec(reference), "")
    await world.deploy(reference)
    bad = world.registry.add(2)
    world.registry.goldens[bad] = TEXTS
    await world.front.deployments.create(BAD, DeploymentSpec(world.registry.point("bad", bad)), "")


async def test_a_trial_that_fails_unforeseen_is_the_fault_of_its_version(world: World) -> None:
    await create_beside(world)

    async def failed() -> bool:
        return (await world.store.get(BAD)).state is State.FAILED

    await world.until(failed)
    fault = (await world.store.get(BAD)).fault
    assert fault is not None
    assert fault.reason == "VERSION_FAILED_TO_START"
    await world.front.deployments.delete(GOOD, "")
    await world.tick(4)
    with pytest.raises(DeploymentNotFoundError):
        await world.store.get(GOOD)
    assert world.meter.states == {State.READY: 1, State.FAILED: 1}
    assert await world.answer() == 1
    world.start()
    await world.tick()
    assert world.front.reconciler.synced


async def test_a_version_that_cannot_be_read_is_the_fault_of_its_deployment(world: World) -> None:
    await create_beside(world)
    two = world.registry.add(3)
    world.registry.garbled.add(two)
    world.registry.point("production", two)
    await world.tick()
    fault = (await world.deployment()).fault
    assert fault is not None
    assert fault.reason == "VERSION_NOT_SERVABLE"
    assert await world.answer() == 1
    world.registry.garbled.clear()
    await world.tick()
    assert await world.answer() == 3


async def test_a_deployment_that_cannot_be_settled_keeps_no_other_waiting(world: World) -> None:
    await create_beside(world)

    replace = world.store.replace

    async def fail(deployment: Deployment) -> Deployment:
        if deployment.name == BAD and deployment.serving:
            raise ValueError("nobody foresaw this")
        return await replace(deployment)

    world.registry.goldens.clear()
    world.store.replace = fail
    await world.front.deployments.delete(GOOD, "")
    world.registry.point("production", world.registry.add(3))
    await world.tick(5)
    assert await world.answer() == 3
    with pytest.raises(DeploymentNotFoundError):
        await world.store.get(GOOD)
    assert (await world.store.get(BAD)).state is State.DEPLOYING


async def test_a_replica_that_cannot_be_tried_does_not_join(world: World) -> None:
    one = world.registry.add(1)
    world.registry.goldens[one] = golden(1)
    await world.deploy(world.registry.point("production", one))
    world.registry.goldens[one] = TEXTS
    await world.update(replicas=2)

    async def refused() -> bool:
        return world.meter.counts["replica_failed"] > 0

    await world.until(refused)
    world.replicas.calls.clear()
    # Three images tell the requests from the trials that go on beside them.
    assert [await answer(world.front, b"x", b"x", b"x") for _ in range(4)] == [1] * 4
    used = {endpoint.address for endpoint, _, items in world.replicas.calls if items == (3,)}
    assert used == {"default.pets.default.pets.v1:0"}
