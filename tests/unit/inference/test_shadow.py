"""A version that gets copies of requests and answers nobody."""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.inference.domain import (
    Comparison,
    Payload,
    PayloadKind,
    PictureAnswer,
    Prediction,
    Segment,
    ServableVersion,
    ShadowShare,
    Tensor,
    Timing,
    TrafficShare,
)
from enxerto.inference.replica.outlines import outlines
from enxerto.inference.replica.run_lengths import run_lengths
from enxerto.inference.service import SpecChange
from enxerto.inference.service.agreement import agreements, comparable
from enxerto.inference.service.masks import drawn
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from enxerto.vision.specs import Task
from fakes.inference_stack import NAME, World
from fakes.inference_world import BAD_IMAGE
from inference_front import MODELS, Front, running_front
from inference_images import GOOD

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


async def test_answers_that_wait_to_be_compared_count_as_memory_too(world: World) -> None:
    await shadowed(world)
    world.replicas.padding = 15 * 2**20
    world.replicas.stuck.add(TWO)
    for _ in range(10):
        await world.answer()
    # One copy hangs at the shadow, and four answers of 15 MiB fit into the 64 MiB of those that wait.
    assert (await compared(world, 5)).dropped == 10 - 1 - 4


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
    assert await world.answer(wanted=2) == 2
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


@pytest.mark.parametrize("seed", range(20))
def test_masks_as_run_lengths_and_outlines_are_compared_as_their_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    # 255 is no class, and class 3 does not occur.
    mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (height, width), p=[0.6, 0.2, 0.1, 0.1])
    for write in (
        lambda of: Segment(0, 1, rle=run_lengths(of)),
        lambda of: Segment(0, 1, outlines=outlines(of)),
    ):
        segments = [replace(write(mask == index), index=index) for index in np.unique(mask[mask != 255]).tolist()]
        np.testing.assert_array_equal(drawn(PictureAnswer(width, height, (), tuple(segments))), mask)


@pytest.mark.parametrize("form", [vision_pb2.MASK_FORMAT_RLE, vision_pb2.MASK_FORMAT_POLYGONS])
async def test_masks_in_any_form_are_compared(tmp_path: Path, form: vision_pb2.MaskFormat.ValueType) -> None:
    async with running_front(tmp_path, shadow_report_s=0) as front:
        await shadow_of(front, "segment")
        request = vision_service_pb2.SegmentRequest(
            deployment="projects/default/deployments/segment", images=[{"content": GOOD["png"]}] * 2, format=form
        )
        answer = await front.vision.Segment(request)
        assert answer.results[0].segments
        found = await compared_by(front, "segment", 2)
        assert (found.images, found.failed, found.agreement) == (2, 0, 1.0)


async def test_what_has_nothing_to_compare_is_not_copied(tmp_path: Path) -> None:
    async with running_front(tmp_path, shadow_report_s=0) as front:
        await shadow_of(front, "detect")
        pixels = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
        # Neither says which boxes were accepted, or what is in them.
        await front.infer("detect", pixels, "boxes")
        await front.infer("detect", pixels, "scores", "boxes")
        await front.infer("detect", pixels)
        # Encoded images are answered with boxes, scores and classes, whatever the message will hold of them.
        await front.infer("detect", [GOOD["png"]], "boxes", "scores", "classes", "accepted")
        found = await compared_by(front, "detect", 2)
        assert (found.images, found.failed, found.dropped) == (2, 0, 0)


def test_embeddings_of_two_networks_are_not_compared() -> None:
    payload = Payload(PayloadKind.ENCODED, (b"x",), 1, outputs=("embedding",))
    assert not comparable(Task.CLASSIFICATION, payload)
    assert comparable(Task.CLASSIFICATION, replace(payload, outputs=("embedding", "probabilities")))
    assert comparable(Task.DETECTION, replace(payload, outputs=("boxes",)))


async def shadow_of(front: Front, model: str) -> None:
    """Let the deployment of a model have a second version of it as shadow."""
    version = front.registry.add_tiny(2, MODELS[model], model)
    front.replicas.load(version, MODELS[model])
    share = ShadowShare(VersionReference("default", model, "2"), 100)
    await front.use_cases.deployments.update(DeploymentName("default", model), SpecChange(shadow=share), "")
    for _ in range(3):
        await front.use_cases.reconciler.tick()


async def compared_by(front: Front, model: str, images: int) -> Comparison:
    for _ in range(500):
        await front.use_cases.reconciler.tick()
        found = (await front.use_cases.deployments.get(DeploymentName("default", model))).comparison
        if found is not None and found.images + found.dropped + found.failed >= images:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"still {found}")
