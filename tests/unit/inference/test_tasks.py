"""Every task through the front's own server, with predictors in the place of Ray: both APIs."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from enxerto.inference.oip import open_inference_pb2 as oip
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from grpc_details import failed_call
from inference_front import Front, running_front
from inference_images import encode

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path, max_message_bytes=2**20) as front:
        yield front


def picture(width: int, height: int, *patches: tuple[tuple[int, int, int], tuple[int, int, int, int]]) -> Image.Image:
    """Black, with patches of one colour: (x_min, y_min, x_max, y_max)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for colour, (left, top, right, bottom) in patches:
        pixels[top:bottom, left:right] = colour
    return Image.fromarray(pixels)


def png(image: Image.Image, orientation: int | None = None) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def name(deployment: str) -> str:
    return f"projects/default/deployments/{deployment}"


def images(*contents: bytes) -> list[vision_pb2.Image]:
    return [vision_pb2.Image(content=content) for content in contents]


def box(found: vision_pb2.DetectedObject) -> list[float]:
    return [found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max]


# 128 x 96 in an input of 64 x 64: half size, with 8 rows of grey above and below.
SCENE = picture(128, 96, (RED, (20, 40, 60, 80)), (BLUE, (100, 4, 120, 24)))


async def detect(front: Front, *contents: bytes, **fields: Any) -> vision_service_pb2.DetectResponse:
    request = vision_service_pb2.DetectRequest(deployment=name("detect"), images=images(*contents), **fields)
    return await front.vision.Detect(request)


async def segment(front: Front, *contents: bytes, **fields: Any) -> vision_service_pb2.SegmentResponse:
    request = vision_service_pb2.SegmentRequest(deployment=name("segment"), images=images(*contents), **fields)
    return await front.vision.Segment(request)


async def stylize(front: Front, *contents: bytes) -> vision_service_pb2.StylizeResponse:
    request = vision_service_pb2.StylizeRequest(deployment=name("style"), images=images(*contents))
    return await front.vision.Stylize(request)


async def test_boxes_lie_in_the_picture_as_it_was_sent(front: Front) -> None:
    (result,) = (await detect(front, png(SCENE), score_threshold=0.1)).results
    red, blue = result.objects
    assert (red.label, red.index, blue.label, blue.index) == ("red", 0, "blue", 1)
    assert (red.score, blue.score) == pytest.approx((0.9, 0.4))
    np.testing.assert_allclose(box(red), [20, 40, 60, 80], atol=2)
    np.testing.assert_allclose(box(blue), [100, 4, 120, 24], atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_boxes_and_masks_are_upright(front: Front, orientation: int) -> None:
    # What a viewer shows is SCENE; what the file holds is turned.
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = SCENE.transpose(turn[orientation]) if orientation > 1 else SCENE
    content = png(stored, orientation)
    (result,) = (await detect(front, content)).results
    np.testing.assert_allclose(box(result.objects[0]), [20, 40, 60, 80], atol=2)
    (mask,) = (await segment(front, content)).results
    assert (mask.width, mask.height) == SCENE.size
    pixels = np.asarray(Image.open(io.BytesIO(mask.png)))
    assert pixels[60, 40] == 1
    assert pixels[12, 110] == 3
    (painted,) = (await stylize(front, content)).results
    assert (painted.width, painted.height) == SCENE.size


async def test_without_a_threshold_the_versions_own_decides(front: Front) -> None:
    answers = [
        (await detect(front, png(SCENE))).results[0],
        (await detect(front, png(SCENE), score_threshold=0.5)).results[0],
        (await detect(front, png(SCENE), score_threshold=0.0, max_objects=1)).results[0],
    ]
    assert [[found.label for found in answer.objects] for answer in answers] == [["red"]] * 3
    assert len((await detect(front, png(SCENE), score_threshold=0.0)).results[0].objects) == 2
    assert not (await detect(front, png(SCENE), score_threshold=1.0)).results[0].objects


async def test_several_pictures_are_answered_in_order(front: Front) -> None:
    contents = [png(picture(40 + 10 * n, 60, (RED, (n, 2, 20 + n, 30)))) for n in range(6)]
    boxes = [box(result.objects[0]) for result in (await detect(front, *contents)).results]
    np.testing.assert_allclose(boxes, [[n, 2, 20 + n, 30] for n in range(6)], atol=2)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
async def test_a_mask_in_all_its_forms_says_the_same(front: Front) -> None:
    content = png(SCENE)
    (plain,) = (await segment(front, content)).results
    mask = np.asarray(Image.open(io.BytesIO(plain.png)))
    counts = {index: int((mask == index).sum()) for index in (0, 1, 3)}
    assert [(one.label, one.pixel_count) for one in plain.segments] == [
        ("black", counts[0]), ("red", counts[1]), ("blue", counts[3])
    ]  # fmt: skip
    assert counts[1] == pytest.approx(40 * 40, rel=0.1)
    assert 0.4 < plain.confidence < 1
    (lengths,) = (await segment(front, content, format=vision_pb2.MASK_FORMAT_RLE)).results
    (shapes,) = (await segment(front, content, format=vision_pb2.MASK_FORMAT_POLYGONS)).results
    assert not lengths.png
    assert not shapes.png
    for one in lengths.segments:
        decoded = coco.decode({"size": [lengths.height, lengths.width], "counts": one.rle.encode()})
        np.testing.assert_array_equal(decoded, mask == one.index)
    black, red, _ = shapes.segments
    assert [polygon.hole for polygon in black.polygons] == [False, True, True]
    x, y = np.array(red.polygons[0].points).reshape(-1, 2).T
    np.testing.assert_allclose([x.min(), y.min(), x.max(), y.max()], [20, 40, 60, 80], atol=2)


async def test_a_painting_is_the_picture_again(front: Front) -> None:
    small = picture(48, 32, (RED, (0, 0, 48, 32)))
    large = picture(200, 100, (BLUE, (0, 0, 200, 100)))
    first, second = (await stylize(front, png(small), png(large))).results
    assert first.media_type == "image/png"
    for result, source in ((first, small), (second, large)):
        painted = Image.open(io.BytesIO(result.content))
        assert painted.size == source.size == (result.width, result.height)
        np.testing.assert_allclose(np.asarray(painted), 255 - np.asarray(source), atol=2)


async def test_timings_say_where_the_time_went(front: Front) -> None:
    timings = (await segment(front, png(SCENE))).timings
    for part in (timings.decode, timings.compute, timings.encode):
        assert part.ToTimedelta().total_seconds() > 0


CALLS = {
    "class": ("Classify", vision_service_pb2.ClassifyRequest),
    "detect": ("Detect", vision_service_pb2.DetectRequest),
    "segment": ("Segment", vision_service_pb2.SegmentRequest),
    "style": ("Stylize", vision_service_pb2.StylizeRequest),
}


@pytest.mark.parametrize("asked", CALLS)
async def test_another_task_is_refused(front: Front, asked: str) -> None:
    method, request = CALLS[asked]
    for deployment in CALLS:
        call = getattr(front.vision, method)(request(deployment=name(deployment), images=images(png(SCENE))))
        if deployment == asked:
            assert len((await call).results) == 1
            continue
        with pytest.raises(grpc.RpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failed_call(refusal.value).reason == "TASK_MISMATCH"


@pytest.mark.parametrize("deployment", CALLS)
async def test_a_bad_picture_is_named_for_every_task(front: Front, deployment: str) -> None:
    method, request = CALLS[deployment]
    message = request(deployment=name(deployment), images=images(png(SCENE), b"no picture", png(SCENE)))
    with pytest.raises(grpc.RpcError) as refusal:
        await getattr(front.vision, method)(message)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed_call(refusal.value).violations) == ["images[1].content"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({"score_threshold": 1.5}, "score_threshold"), ({"score_threshold": float("nan")}, "score_threshold"),
     ({"max_objects": -1}, "max_objects")],
)  # fmt: skip
async def test_a_bad_detect_request_is_told_what_is_wrong(front: Front, fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await detect(front, png(SCENE), **fields)
    assert list(failed_call(refusal.value).violations) == [wrong]


async def test_an_unknown_mask_format_is_refused(front: Front) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await segment(front, png(SCENE), format=77)
    assert list(failed_call(refusal.value).violations) == ["format"]


async def test_an_answer_too_large_for_a_message_is_refused(front: Front) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).resize((900, 900))
    content = encode(noise, "JPEG", quality=50)
    with pytest.raises(grpc.RpcError) as refusal:
        await stylize(front, *[content] * 3)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ANSWER_TOO_LARGE" in next(iter(failed_call(refusal.value).violations.values()))


@pytest.mark.parametrize(
    ("model", "shape", "outputs"),
    [
        ("class", [-1, 3, 16, 16], {"probabilities": [-1, 4]}),
        ("detect", [-1, 3, 64, 64],
         {"boxes": [-1, 100, 4], "scores": [-1, 100], "classes": [-1, 100], "accepted": [-1, 100]}),
        ("segment", [-1, 3, 64, 64], {"classes": [-1, -1, -1], "confidence": [-1]}),
        ("style", [-1, 3, -1, -1], {"pictures": [-1, 3, -1, -1]}),
    ],
)  # fmt: skip
async def test_metadata_lists_both_inputs_and_all_outputs(
    front: Front, model: str, shape: list[int], outputs: dict[str, list[int]]
) -> None:
    metadata = await front.open.ModelMetadata(oip.ModelMetadataRequest(name=model))
    assert [(one.datatype, list(one.shape)) for one in metadata.inputs] == [("BYTES", [-1]), ("FP32", shape)]
    assert {one.name: list(one.shape) for one in metadata.outputs} == outputs


async def test_tensors_get_the_graphs_own_outputs(front: Front) -> None:
    pixels = np.zeros((2, 3, 64, 64), np.float32)
    pixels[0, 0, 10:20, 30:50] = 1
    pixels[1, 2, 5:6, 7:8] = 1
    found = await front.infer("detect", pixels)
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (2, 100, 4), "scores": (2, 100), "classes": (2, 100), "accepted": (2, 100)
    }  # fmt: skip
    assert found["boxes"][0, 0].tolist() == [30, 10, 50, 20]
    assert found["classes"][:, :3].tolist() == [[0, -1, -1], [-1, 1, -1]]
    masks = await front.infer("segment", pixels, "classes")
    assert list(masks) == ["classes"]
    assert masks["classes"].shape == (2, 64, 64)
    assert masks["classes"][1, 5, 7] == 3
    painted = await front.infer("style", pixels[:, :, :24, :40])
    np.testing.assert_array_equal(painted["pictures"], 1 - pixels[:, :, :24, :40])


async def test_encoded_pictures_get_answers_in_their_own_pixels(front: Front) -> None:
    found = await front.infer("detect", [png(SCENE), png(picture(64, 64))], "classes", "boxes")
    assert list(found) == ["classes", "boxes"]
    assert found["boxes"].shape == (2, 100, 4)
    np.testing.assert_allclose(found["boxes"][0, 0], [20, 40, 60, 80], atol=2)
    assert found["classes"][:, :3].tolist() == [[0, 1, -1], [-1, -1, -1]]
    masks = await front.infer("segment", [png(SCENE)] * 2)
    assert masks["classes"].shape == (2, 96, 128)
    assert masks["classes"][1, 60, 40] == 1
    assert masks["confidence"].shape == (2,)
    painted = await front.infer("style", [png(SCENE)])
    assert painted["pictures"].shape == (1, 3, 96, 128)
    np.testing.assert_allclose(painted["pictures"][0, :, 60, 40], [0, 1, 1], atol=0.02)


@pytest.mark.parametrize("model", ["segment", "style"])
async def test_answers_of_different_size_make_no_tensor(front: Front, model: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await front.infer(model, [png(SCENE), png(picture(40, 40))])
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "one in a request" in failed_call(refusal.value).violations["inputs[0]"]


@pytest.mark.parametrize(
    ("model", "shape"),
    [("detect", (1, 3, 64, 32)), ("segment", (1, 3, 8, 8)), ("style", (1, 3, 72, 64)), ("style", (1, 3, 12, 16))],
)
async def test_a_tensor_of_another_shape_is_refused(front: Front, model: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await front.infer(model, np.zeros(shape, np.float32))
    assert list(failed_call(refusal.value).violations) == ["inputs[0].shape"]


@pytest.mark.parametrize("outputs", [("logits",), ("boxes", "boxes")])
async def test_outputs_that_are_not_there_or_twice_are_refused(front: Front, outputs: tuple[str, ...]) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await front.infer("detect", np.zeros((1, 3, 64, 64), np.float32), *outputs)
    assert list(failed_call(refusal.value).violations) == [f"outputs[{len(outputs) - 1}].name"]
