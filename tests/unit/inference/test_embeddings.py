"""Embeddings through the front's own server: who gets them, and who does not pay for them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from enxerto.inference.domain import TrafficShare
from enxerto.inference.oip import open_inference_pb2 as oip
from enxerto.inference.service import SpecChange
from enxerto.inference.v1.vision_service_pb2 import ClassifyRequest, EmbedRequest
from enxerto.kernel.names import DeploymentName, VersionReference
from fakes.tiny_onnx import TinyDetector, TinyModel
from grpc_details import failed_call
from inference_front import Front, deployment, plain, running_front

MODELS = {"new": TinyModel(embeds=True), "old": TinyModel(), "detect": TinyDetector()}
COLOURS = [(255, 0, 0), (0, 51, 0), (102, 0, 204)]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    # What is observed is computed in full, whoever asked.
    async with running_front(tmp_path, MODELS, observed_images_per_s=0) as running:
        yield running


async def test_each_image_has_its_embedding(front: Front) -> None:
    answer = await front.vision.Embed(EmbedRequest(deployment=deployment("new"), images=plain(*COLOURS)))
    assert answer.model_version == "projects/default/models/new/versions/1"
    assert answer.dimension == 3
    np.testing.assert_allclose([one.values for one in answer.results], np.array(COLOURS) / 255, atol=1e-6)
    assert answer.timings.compute.ToTimedelta().total_seconds() > 0


async def test_a_version_without_embeddings_is_refused_in_words(front: Front) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await front.vision.Embed(EmbedRequest(deployment=deployment("old"), images=plain(*COLOURS)))
    failed = failed_call(refusal.value)
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_EMBEDDING")
    assert "train it again" in failed.message
    with pytest.raises(grpc.RpcError) as refusal:
        await front.vision.Embed(EmbedRequest(deployment=deployment("detect"), images=plain(*COLOURS)))
    assert failed_call(refusal.value).reason == "TASK_MISMATCH"


async def test_the_main_version_embeds_in_the_place_of_a_canary_that_cannot(front: Front) -> None:
    canary = TrafficShare(VersionReference("default", "old", "1"), 99)
    await front.use_cases.deployments.update(DeploymentName("default", "new"), SpecChange(traffic=(canary,)), "")
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    request, answered = plain(COLOURS[0]), set()
    for _ in range(20):
        embedded = await front.vision.Embed(EmbedRequest(deployment=deployment("new"), images=request))
        assert embedded.model_version == "projects/default/models/new/versions/1"
        classified = await front.vision.Classify(ClassifyRequest(deployment=deployment("new"), images=request))
        answered.add(classified.model_version)
    # The canary has its share of what it can answer: none of twenty with a probability of 1e-40.
    assert "projects/default/models/old/versions/1" in answered


async def test_only_what_is_asked_for_leaves_the_replica(front: Front) -> None:
    await front.vision.Classify(ClassifyRequest(deployment=deployment("new"), images=plain(*COLOURS)))
    await front.vision.Embed(EmbedRequest(deployment=deployment("new"), images=plain(*COLOURS)))
    assert front.replicas.outputs[-2:] == [("probabilities",), ("embedding",)]


async def test_callers_of_one_batch_get_what_each_asked_for(front: Front) -> None:
    classify = ClassifyRequest(deployment=deployment("new"), images=plain(COLOURS[0]))
    embed = EmbedRequest(deployment=deployment("new"), images=plain(COLOURS[1]))
    calls = [front.vision.Classify(classify) for _ in range(8)] + [front.vision.Embed(embed) for _ in range(8)]
    answers = await asyncio.gather(*calls)
    assert max(front.replicas.batches) > 1
    assert all(len(answer.results[0].categories) == 4 for answer in answers[:8])
    for answer in answers[8:]:
        np.testing.assert_allclose(answer.results[0].values, np.array(COLOURS[1]) / 255, atol=1e-6)


async def test_the_open_protocol_lists_both_outputs_and_gives_those_that_are_named(front: Front) -> None:
    metadata = await front.open.ModelMetadata(oip.ModelMetadataRequest(name="new"))
    assert [(one.name, list(one.shape)) for one in metadata.outputs] == [
        ("probabilities", [-1, 4]), ("embedding", [-1, 3])
    ]  # fmt: skip
    pixels = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    for named, given in (
        ((), ("probabilities", "embedding")),
        (("probabilities",), ("probabilities",)),
        (("embedding", "probabilities"), ("embedding", "probabilities")),
    ):
        request = oip.ModelInferRequest(
            model_name="new",
            inputs=[{"name": "images", "datatype": "FP32", "shape": pixels.shape}],
            outputs=[{"name": name} for name in named],
            raw_input_contents=[pixels.tobytes()],
        )
        answer = await front.open.ModelInfer(request)
        assert tuple(output.name for output in answer.outputs) == given
        assert set(front.replicas.outputs[-1]) == set(given)
    rows = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 3)
    np.testing.assert_allclose(rows, pixels.mean(axis=(2, 3)), atol=1e-5)
