"""A version that gets copies of requests and answers nobody."""

import asyncio
import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from enxerto.inference.domain import (
    AnswerForm,
    Comparison,
    Payload,
    PayloadKind,
    PictureAnswer,
    Prediction,
    ServableVersion,
    ShadowShare,
    Tensor,
    Timing,
    TrafficShare,
)
from enxerto.inference.service.agreement import agreements, comparable
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.vision.specs import Task
from fakes.inference_stack import NAME, World
from fakes.inference_world import BAD_IMAGE

ONE, TWO = (VersionName("default", "pets", number) for number in (1, 2))


@pytest.fixture
def world() -> World:
    return World()


def shadow(percent: int = 100) -> ShadowShare:
    return ShadowShare(VersionReference("default", "pets", "candidate"), percent)


async def shadowed(world: World, percent: int = 100) -> None:
    world.registry.point("candidate", world.registry.add(2))
    await world.deploy(world.registry.point("production", world.registry.add(1)), shadow=shadow(percent))


async def compared(world: World, images: int) -> Comparison:
    """What the deployment shows once so many images were compared or given up."""
    for _ in range(500):
        await world.tick(1)
        found = (await world.deployment()).comparison
        if found is not None and found.images + found.dropped + found.failed >= images:
            return found
    raise AssertionError(f"still {found}")


async def test_callers_are_answered_by_the_main_version_and_the_shadow_is_compared(world: World) -> None:
    await shadowed(world)
    assert await world.shares(20) == {1: 1.0}
    found = await compared(world, 20)
    assert (found.main, found.shadow, found.images, found.failed) == (ONE, TWO, 20, 0)
    # Class 0 has the version's number, class 1 the bytes of the image: one byte is less than 2, and no less than 1.
    assert found.agreement == 1.0
    assert world.meter.counts["shadow_images"] == 20
    assert world.meter.counts["answered"] == 20


async def test_a_difference_shows(world: World) -> None:
    await shadowed(world)
    # Two bytes: version 1 says class 1, version 2 says class 0.
    assert {await world.answer(b"xy") for _ in range(4)} == {1}
    assert (await compared(world, 4)).agreement == 0.0


async def test_only_the_share_is_copied(world: World) -> None:
    await shadowed(world, 20)
    await world.shares(1000)
    copies = sum(version == TWO for _, version, _ in world.replicas.calls)
    found = await compared(world, 1)
    assert 0 < copies + found.dropped < 500


async def test_a_shadow_that_hangs_or_fails_is_no_concern_of_callers(world: World) -> None:
    await shadowed(world)
    world.replicas.dead |= {end.address for end in world.replicas.kept if ".v2" in end.address}
    assert await world.shares(10) == {1: 1.0}
    assert (await compared(world, 10)).failed == 10
    world.replicas.dead.clear()
    world.replicas.stuck.add(TWO)
    assert await world.shares(100) == {1: 1.0}
    found = await compared(world, 40)
    # One copy hangs at the shadow, 64 wait, the others were given up.
    assert found.dropped == 100 - 1 - 64
    assert found.images == 0


async def test_a_shadow_that_does_not_come_up_shows(world: World) -> None:
    world.cluster.broken.add(TWO)
    await shadowed(world)
    deployment = await world.deployment()
    assert deployment.companions[0].fault is not None
    assert deployment.fault is None
    assert await world.shares(5) == {1: 1.0}


async def test_what_was_found_survives_a_restart_and_begins_anew_with_another_version(world: World) -> None:
    await shadowed(world)
    await world.shares(5)
    await compared(world, 5)
    world.start()
    await world.tick(2)
    await world.shares(5)
    assert (await compared(world, 10)).images == 10
    world.registry.point("candidate", world.registry.add(3))
    await world.tick()
    await world.shares(5)
    for _ in range(500):
        found = await compared(world, 5)
        if found.shadow.number == 3:
            break
    assert found.images == 5
    await world.update(shadow=None)
    assert (await world.deployment()).comparison is None
    await world.tick()
    assert [app.version.number for app in world.cluster.running.values()] == [1]


async def test_a_shadow_is_reached_by_its_number_and_is_no_canary_too(world: World) -> None:
    await shadowed(world)
    assert await world.answer(number=2) == 2
    with pytest.raises(InvalidArgumentError):
        await world.update(traffic=(TrafficShare(shadow().model_version, 5),))


async def test_refused_images_are_not_copied(world: World) -> None:
    await shadowed(world)
    with pytest.raises(InvalidArgumentError):
        await world.answer(BAD_IMAGE)
    await asyncio.sleep(0.01)
    assert not any(version == TWO and items == (1,) for _, version, items in world.replicas.calls[2:])
    assert world.front.predictions.ready(NAME)


def prediction(task: Task, labels: Sequence[str], *, tensors: Sequence[Tensor] = (), pictures: int = 0) -> Prediction:
    version = ServableVersion(ONE, task, tuple(labels), 4, 4, ())
    timing = Timing(0.0, 0.0, 0.0, 0.0)
    if pictures:
        return Prediction(version, (), (PictureAnswer(4, 4, tuple(tensors)),), pictures, timing)
    return Prediction(version, tuple(tensors), (), 1, timing)


def tensor(name: str, datatype: str, values: np.ndarray) -> Tensor:
    return Tensor(name, datatype, values.shape, values.tobytes())


def boxes(*found: tuple[float, float, float, float, int, bool]) -> list[Tensor]:
    return [
        tensor("boxes", "FP32", np.array([one[:4] for one in found], np.float32).reshape(-1, 4)),
        tensor("scores", "FP32", np.ones(len(found), np.float32)),
        tensor("classes", "INT64", np.array([one[4] for one in found], np.int64)),
        tensor("accepted", "BOOL", np.array([one[5] for one in found], np.bool_)),
    ]


def png(pixels: np.ndarray, name: str) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Tensor(name, "BYTES", (), buffer.getvalue())


def test_boxes_are_paired_by_label_and_overlap() -> None:
    ours = boxes((0, 0, 10, 10, 0, True), (20, 20, 30, 30, 1, True), (0, 0, 9, 9, 0, False))
    theirs = boxes((1, 0, 10, 10, 1, True), (20, 20, 30, 30, 1, True))
    left = prediction(Task.DETECTION, ("cat", "dog"), tensors=ours, pictures=1)
    # The other version has its labels in another order: its first box is a cat, its second a cat as well.
    right = prediction(Task.DETECTION, ("dog", "cat"), tensors=theirs, pictures=1)
    assert agreements(left, right) == [2 * 1 / 4]
    nothing = prediction(Task.DETECTION, ("cat", "dog"), tensors=boxes(), pictures=1)
    assert agreements(nothing, nothing) == [1.0]
    assert agreements(left, nothing) == [0.0]


def test_masks_are_compared_by_label() -> None:
    ours, theirs = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    ours[:2], theirs[:1] = 1, 1
    left = prediction(Task.SEGMENTATION, ("sky", "sea"), tensors=[png(ours, "classes")], pictures=1)
    right = prediction(Task.SEGMENTATION, ("sky", "sea"), tensors=[tensor("classes", "UINT8", theirs)], pictures=1)
    assert agreements(left, right) == [pytest.approx((8 / 12 + 4 / 8) / 2)]
    assert agreements(left, left) == [1.0]


def test_paintings_are_compared_by_colour() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    left, right = (
        prediction(Task.STYLE, (), tensors=[png(pixels, "pictures")], pictures=1) for pixels in (black, grey)
    )
    assert agreements(left, right) == [pytest.approx(0.8)]


def test_masks_as_outlines_are_not_compared() -> None:
    payload = Payload(PayloadKind.ENCODED, (b"x",), 1, form=AnswerForm.POLYGONS)
    assert not comparable(Task.SEGMENTATION, payload)
    assert comparable(Task.DETECTION, payload)
