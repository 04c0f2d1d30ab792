"""Answers that are kept and given again, through the front's own server."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from enxerto.inference.adapters.replica_client import answer_from_proto
from enxerto.inference.domain import BatchAnswer, ItemRefusal, PictureAnswer, Segment, Tensor, Timing
from enxerto.inference.errors import ReplicasUnavailableError
from enxerto.inference.oip import open_inference_pb2 as oip
from enxerto.inference.replica.messages import response
from enxerto.inference.replica.outlines import outlines
from enxerto.inference.service import ResponseCaches, Share, SpecChange
from enxerto.inference.v1.vision_pb2 import MASK_FORMAT_PNG, MASK_FORMAT_RLE, Image
from enxerto.inference.v1.vision_service_pb2 import ClassifyRequest, DetectRequest, EmbedRequest, SegmentRequest
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from fakes.inference_world import CountingMeter
from fakes.tiny_onnx import TinyDetector, TinyModel, TinySegmenter
from grpc_details import failed_call
from inference_front import Front, deployment, infer_request, plain, running_front

MODELS = {"class": TinyModel(embeds=True), "detect": TinyDetector(), "segment": TinySegmenter()}
RED, BLUE = (255, 0, 0), (0, 0, 255)
MEBIBYTE = 2**20


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    # What is observed is computed in full, whoever asked.
    async with running_front(tmp_path, MODELS, observed_images_per_s=0) as running:
        for name in MODELS:
            await change(running, name, response_cache=MEBIBYTE)
        yield running


async def change(front: Front, name: str, **fields: Any) -> None:
    await front.use_cases.deployments.update(DeploymentName("default", name), SpecChange(**fields), "")
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    front.replicas.batches.clear()


async def classify(front: Front, *colours: tuple[int, int, int], **fields: Any) -> Any:
    request = ClassifyRequest(deployment=deployment("class"), images=plain(*colours), **fields)
    return await front.vision.Classify(request)


def looked_up(front: Front) -> tuple[int, int]:
    return front.meter.counts["cache hit"], front.meter.counts["cache miss"]


async def statistics(front: Front) -> oip.ModelStatistics:
    (found,) = (await front.open.ModelStatistics(oip.ModelStatisticsRequest(name="class"))).model_stats
    return found


async def test_nothing_is_kept_unless_a_deployment_wants_it(tmp_path: Path) -> None:
    async with running_front(tmp_path, MODELS, observed_images_per_s=0) as front:
        for _ in range(2):
            assert not (await classify(front, RED)).timings.cached
        assert front.replicas.batches[-2:] == [1, 1]
        assert looked_up(front) == (0, 0)
        assert not (await front.open.ModelConfig(oip.ModelConfigRequest(name="class"))).config.response_cache.enable
        counted = (await statistics(front)).inference_stats
        assert (counted.cache_hit.count, counted.cache_miss.count) == (0, 0)


async def test_the_same_content_is_answered_without_a_replica(front: Front) -> None:
    first, again = await classify(front, RED, BLUE), await classify(front, RED, BLUE)
    assert front.replicas.batches == [2]
    assert again.results == first.results
    assert again.model_version == first.model_version
    assert again.prediction_id != first.prediction_id
    spent = again.timings
    assert spent.cached
    assert not any(
        one.ToTimedelta().total_seconds() for one in (spent.queue, spent.decode, spent.compute, spent.encode)
    )
    assert not first.timings.cached
    assert first.timings.compute.ToTimedelta().total_seconds() > 0
    # How many classes are shown is decided in front of the cache.
    assert len((await classify(front, RED, BLUE, top_k=1)).results[0].categories) == 1
    assert front.replicas.batches == [2]
    assert looked_up(front) == (2, 1)
    assert (await front.open.ModelConfig(oip.ModelConfigRequest(name="class"))).config.response_cache.enable


async def test_hits_are_counted_as_triton_counts_them(front: Front) -> None:
    for colours in ((RED, BLUE), (RED, BLUE), (RED, BLUE), (RED,)):
        await classify(front, *colours)
    found = await statistics(front)
    inside = found.inference_stats
    assert (found.inference_count, found.execution_count) == (3, 2)
    assert (inside.success.count, inside.queue.count, inside.compute_infer.count) == (4, 4, 2)
    assert (inside.cache_hit.count, inside.cache_miss.count) == (2, 2)
    assert inside.success.ns > inside.cache_hit.ns > 0
    assert inside.cache_miss.ns > 0
    assert front.meter.counts["answered"] == 7


async def test_other_content_is_another_request(front: Front) -> None:
    one, other = (image.content for image in plain(RED, BLUE))
    await classify(front, RED, BLUE)
    for colours in ((BLUE, RED), (RED,), (RED, RED)):
        assert not (await classify(front, *colours)).timings.cached
    # The same bytes, cut elsewhere.
    joined = [Image(content=one + other[:1]), Image(content=other[1:])]
    with pytest.raises(grpc.RpcError):
        await front.vision.Classify(ClassifyRequest(deployment=deployment("class"), images=joined))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    for _ in range(2):
        await front.open.ModelInfer(infer_request("class", pixels))
    await front.open.ModelInfer(infer_request("class", pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255))
    assert looked_up(front) == (1, 7)


async def test_either_protocol_gives_what_the_other_one_kept(front: Front) -> None:
    typed = await classify(front, RED)
    request = infer_request("class", [plain(RED)[0].content], outputs=[{"name": "probabilities"}])
    answer = await front.open.ModelInfer(request)
    assert looked_up(front) == (1, 1)
    found = np.frombuffer(answer.raw_output_contents[0], "<f4")
    assert found.max() == pytest.approx(typed.results[0].categories[0].probability)


async def test_outputs_of_one_image_do_not_push_each_other_out(front: Front) -> None:
    embed = EmbedRequest(deployment=deployment("class"), images=plain(RED))
    # Neither was asked for what the other one wants.
    await classify(front, RED)
    assert not (await front.vision.Embed(embed)).timings.cached
    first = await front.vision.Embed(embed)
    np.testing.assert_allclose(first.results[0].values, (1, 0, 0), atol=1e-6)
    assert first.timings.cached
    assert (await classify(front, RED)).timings.cached
    assert front.replicas.outputs[-2:] == [("probabilities",), ("embedding",)]


async def test_every_task_and_every_form(front: Front) -> None:
    images = plain(RED)
    for call, request in (
        (front.vision.Detect, DetectRequest(deployment=deployment("detect"), images=images, score_threshold=0)),
        (front.vision.Segment, SegmentRequest(deployment=deployment("segment"), images=images, format=MASK_FORMAT_RLE)),
        (front.vision.Segment, SegmentRequest(deployment=deployment("segment"), images=images, format=MASK_FORMAT_PNG)),
    ):
        first, again = await call(request), await call(request)
        assert (first.timings.cached, again.timings.cached) == (False, True)
        assert again.results == first.results
    # Thresholds are applied in front of the cache too.
    strict = DetectRequest(deployment=deployment("detect"), images=images, score_threshold=1)
    answer = await front.vision.Detect(strict)
    assert (answer.timings.cached, len(answer.results[0].objects)) == (True, 0)


async def test_large_content_is_hashed_beside_the_event_loop(front: Front) -> None:
    planes = np.random.default_rng(0).random((4, 3, 64, 64), np.float32)
    for _ in range(2):
        answer = await front.open.ModelInfer(infer_request("detect", planes))
    assert looked_up(front) == (1, 1)
    planes[3, 2, 63, 63] /= 2
    assert (await front.open.ModelInfer(infer_request("detect", planes))).outputs == answer.outputs
    assert looked_up(front) == (1, 2)


async def test_refusals_and_failures_are_not_kept(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = ClassifyRequest(deployment=deployment("class"), images=[*plain(RED), Image(content=b"no picture")])
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refusal:
            await front.vision.Classify(bad)
        assert list(failed_call(refusal.value).violations) == ["images[1].content"]
    assert front.replicas.batches == [2, 2]
    predict = front.replicas.predict

    async def fail(*arguments: Any) -> Any:
        raise ReplicasUnavailableError("gone")

    monkeypatch.setattr(front.replicas, "predict", fail)
    with pytest.raises(grpc.RpcError) as refusal:
        await classify(front, BLUE)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    monkeypatch.setattr(front.replicas, "predict", predict)
    assert not (await classify(front, BLUE)).timings.cached
    assert (await classify(front, BLUE)).timings.cached


async def test_a_version_never_answers_for_another(front: Front) -> None:
    before = await classify(front, RED)
    assert front.meter.cached_bytes > 0
    other = TinyModel(seed=1, embeds=True)
    front.replicas.load(front.registry.add_tiny(2, other, "class"), other)
    await change(front, "class", model_version=VersionReference("default", "class", "2"))
    assert front.meter.cached_bytes == 0
    for cached in (False, True):
        answer = await classify(front, RED)
        assert (answer.model_version[-1], answer.timings.cached) == ("2", cached)
        assert answer.results != before.results
    await change(front, "class", model_version=VersionReference("default", "class", "1"))
    assert not (await classify(front, RED)).timings.cached


async def test_a_cache_is_changed_and_ends_with_its_deployment(front: Front) -> None:
    for colour in (RED, BLUE):
        await classify(front, colour)
    both = front.meter.cached_bytes
    await change(front, "class", response_cache=both * 3 // 4)
    assert 0 < front.meter.cached_bytes < both
    # The one that was asked for last is there.
    assert (await classify(front, BLUE)).timings.cached
    await change(front, "class", response_cache=0)
    assert front.meter.cached_bytes == 0
    assert not (await classify(front, BLUE)).timings.cached
    await change(front, "class", response_cache=MEBIBYTE)
    await classify(front, BLUE)
    await front.use_cases.deployments.delete(DeploymentName("default", "class"), "")
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    assert front.meter.cached_bytes == 0


async def test_hits_count_for_the_rate_and_for_quality(tmp_path: Path) -> None:
    settings = {"project_images_per_s": 0.001, "project_burst_images": 4}
    async with running_front(tmp_path, MODELS, **settings) as front:
        await change(front, "class", response_cache=MEBIBYTE)
        for _ in range(4):
            await classify(front, RED)
        assert looked_up(front) == (3, 1)
        with pytest.raises(grpc.RpcError) as refusal:
            await classify(front, RED)
        assert failed_call(refusal.value).reason == "RATE_LIMITED"
        # Observed in full, each of them.
        (seen,) = front.use_cases.observer.quality(DeploymentName("default", "class"))
        assert seen.images == 4


NAMES = [DeploymentName("default", name) for name in ("a", "b")]
ONE, TWO = (VersionName("default", "pets", number) for number in (1, 2))


def share(size: int, refusals: tuple[ItemRefusal, ...] = ()) -> Share:
    content = Tensor("probabilities", "UINT8", (size,), bytes(size))
    return Share((content,), (), refusals, Timing(0.0, 0.0, 0.0, 0.0))


def test_the_least_recently_used_answer_goes_first_and_bytes_are_bounded() -> None:
    meter = CountingMeter()
    caches = ResponseCaches(50_000, meter)
    for name in NAMES:
        caches.keep(name, frozenset({ONE}), 35_000)
    a, b = NAMES

    def held(name: DeploymentName) -> list[bytes]:
        return [digest for digest in (b"1", b"2", b"3", b"4") if caches.find(name, ONE, digest, ())]

    for digest in (b"1", b"2", b"3"):
        caches.put(a, ONE, digest, (), share(10_000))
    assert held(a) == [b"1", b"2", b"3"]
    caches.find(a, ONE, b"1", ())
    caches.put(a, ONE, b"4", (), share(10_000))
    assert held(a) == [b"1", b"3", b"4"]
    # Together they may have 50,000: the larger one makes room, its oldest answer first.
    for digest in (b"1", b"2"):
        caches.put(b, ONE, digest, (), share(10_000))
    assert (held(a), held(b)) == ([b"3", b"4"], [b"1", b"2"])
    assert meter.cached_bytes <= 50_000
    # Never larger than the cache, not in place of anything, and none of an unreadable image or of another version.
    caches.put(a, ONE, b"1", (), share(40_000))
    caches.put(a, ONE, b"1", (), share(10, (ItemRefusal(0, "CORRUPT_IMAGE", "damaged"),)))
    caches.put(a, TWO, b"1", (), share(10))
    assert held(a) == [b"3", b"4"]
    assert caches.find(a, TWO, b"1", ()) is None


SPECKS = np.random.default_rng(0).random((200, 200)) < 0.5
COMB = np.arange(200)[:, None] < np.random.default_rng(0).integers(1, 200, 200)


@pytest.mark.parametrize("mask", [SPECKS, COMB], ids=["many outlines", "one long outline"])
def test_outlines_count_for_what_they_take(mask: np.ndarray) -> None:
    segment = Segment(0, int(mask.sum()), "", outlines(mask))
    message = response(BatchAnswer((), (PictureAnswer(200, 200, (), (segment,)),), (), 0, 0))
    tracemalloc.start()
    try:
        found = Share((), answer_from_proto(message).pictures, (), Timing(0, 0, 0, 0))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    meter, name, version = CountingMeter(), DeploymentName("default", "a"), VersionName("default", "a", 1)
    caches = ResponseCaches(2**30, meter)
    caches.keep(name, frozenset({version}), 2**30)
    caches.put(name, version, b"digest", (), found)
    assert taken <= meter.cached_bytes <= 1.5 * taken + 2048


async def test_many_at_once_each_get_an_answer(front: Front) -> None:
    answers = await asyncio.gather(*(classify(front, RED) for _ in range(20)))
    assert all(answer.results == answers[0].results for answer in answers)
    assert sum(looked_up(front)) == 20
