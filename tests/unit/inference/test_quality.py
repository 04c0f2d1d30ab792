"""Quality through the front's own server: what is observed, what callers say, and what is kept for labelling."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from enxerto.inference.domain import PredictionId
from enxerto.inference.oip import open_inference_pb2 as oip
from enxerto.inference.v1 import quality_pb2
from enxerto.inference.v1.quality_service_pb2 import (
    DeleteSampleRequest,
    DownloadSampleRequest,
    Feedback,
    GetDeploymentQualityRequest,
    GetSamplingPolicyRequest,
    ListSamplesRequest,
    SubmitFeedbackRequest,
    SubmitFeedbackResponse,
    UpdateSamplingPolicyRequest,
)
from enxerto.inference.v1.vision_service_pb2 import ClassifyRequest, ClassifyResponse, DetectRequest, SegmentRequest
from enxerto.kernel.names import DeploymentName, VersionName
from enxerto.vision.embeddings import EmbeddingReference
from enxerto.vision.specs import Task
from fakes.tiny_onnx import LABELS, TinyDetector, TinyModel, TinySegmenter
from grpc_details import failed_call
from inference_front import ALIAS, Front, deployment, plain, running_front

MODELS = {"class": TinyModel(embeds=True), "plain": TinyModel(), "detect": TinyDetector(), "segment": TinySegmenter()}
CLASS = DeploymentName("default", "class")
DARK, RED = (10, 12, 14), (255, 0, 0)
# Training images were dark.
REFERENCE = EmbeddingReference(100, np.full(3, 0.05), np.full(3, 0.02**2), held_out_drift=0.3)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path, MODELS, observed_images_per_s=1000) as running:
        running.registry.references[VersionName("default", "class", 1)] = REFERENCE
        yield running


async def classify(front: Front, *colours: tuple[int, int, int], name: str = "class") -> ClassifyResponse:
    request = ClassifyRequest(deployment=deployment(name), images=plain(*colours), top_k=1)
    return await front.vision.Classify(request)


async def quality(front: Front, name: str = "class", **fields: object) -> quality_pb2.DeploymentQuality:
    request = GetDeploymentQualityRequest(deployment=deployment(name), **fields)
    return await front.quality.GetDeploymentQuality(request)


async def submit(front: Front, *feedback: Feedback, name: str = "class") -> SubmitFeedbackResponse:
    request = SubmitFeedbackRequest(deployment=deployment(name), feedback=feedback)
    return await front.quality.SubmitFeedback(request)


async def keep(front: Front, name: str = "class", **fields: object) -> quality_pb2.SamplingPolicy:
    policy = quality_pb2.SamplingPolicy(deployment=deployment(name), **fields)
    return await front.quality.UpdateSamplingPolicy(UpdateSamplingPolicyRequest(policy=policy))


async def samples(front: Front, name: str = "class") -> list[quality_pb2.Sample]:
    await front.use_cases.samples.flush()
    return list((await front.quality.ListSamples(ListSamplesRequest(parent=deployment(name)))).samples)


async def test_classes_and_confidences_are_counted(front: Front) -> None:
    answers = await classify(front, RED, RED, DARK)
    (observed,) = (await quality(front)).versions
    assert observed.model_version == answers.model_version
    assert observed.observed_image_count == 3
    found = [answer.categories[0].label for answer in answers.results]
    shares = {one.label: one.share for one in observed.class_shares}
    assert shares == pytest.approx({label: found.count(label) / 3 for label in set(found)})
    assert sum(observed.confidence_shares) == pytest.approx(1)
    told = [value for task, value in front.meter.confidences if task is Task.CLASSIFICATION]
    assert told == pytest.approx([answer.categories[0].probability for answer in answers.results])
    assert not (await quality(front, "plain")).versions


async def test_every_task_but_style_has_confidences(front: Front) -> None:
    await front.vision.Detect(DetectRequest(deployment=deployment("detect"), images=plain(RED, DARK)))
    await front.vision.Segment(SegmentRequest(deployment=deployment("segment"), images=plain(RED)))
    assert [value for task, value in front.meter.confidences if task is Task.DETECTION] == pytest.approx([0.9, 0])
    (observed,) = (await quality(front, "detect")).versions
    # 0.9 as float32 is a little less.
    assert np.argwhere(np.array(observed.confidence_shares) > 0).ravel().tolist() == [0, 8]
    assert not observed.class_shares
    assert (await quality(front, "segment")).versions[0].observed_image_count == 1


async def test_images_unlike_those_of_training_are_drift(front: Front) -> None:
    noise = np.random.default_rng(0).normal(0.05, 0.02, (40, 3)).clip(0, 1) * 255
    dark = [tuple(map(int, colour)) for colour in noise]
    for _ in range(3):
        await classify(front, *dark)
    (observed,) = (await quality(front)).versions
    assert observed.held_out_drift == pytest.approx(0.3)
    assert observed.embedding_drift < 0.3
    assert not observed.drifted
    await classify(front, *[RED] * 40)
    (observed,) = (await quality(front)).versions
    assert observed.embedding_drift > 1
    assert observed.drifted
    front.use_cases.observer.report(front.use_cases.predictions.answering())
    assert front.meter.drift == (pytest.approx(observed.embedding_drift), 1)
    front.use_cases.observer.report({})
    assert front.meter.drift == (0, 0)


async def test_what_was_seen_of_a_version_that_answers_no_more_is_forgotten(front: Front) -> None:
    for _ in range(2):
        await classify(front, *[RED] * 40)
    front.use_cases.observer.report(front.use_cases.predictions.answering())
    assert front.meter.drift[1] == 1
    two = front.registry.add_tiny(2, MODELS["class"], "class")
    front.replicas.load(two, MODELS["class"])
    front.registry.point(ALIAS, two)
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    answers = await classify(front, DARK)
    assert answers.model_version == str(two)
    front.use_cases.observer.report(front.use_cases.predictions.answering())
    assert front.meter.drift == (0, 0)
    assert [one.model_version for one in (await quality(front)).versions] == [str(two)]


async def test_drift_is_unknown_without_a_reference_or_with_few_images(front: Front) -> None:
    await classify(front, *[RED] * 60)
    assert not (await quality(front)).versions[0].HasField("embedding_drift")
    for _ in range(2):
        await classify(front, *[RED] * 60, name="plain")
    observed = (await quality(front, "plain")).versions[0]
    assert not observed.HasField("embedding_drift")
    assert not observed.HasField("held_out_drift")


async def test_looking_is_bounded_in_images_a_second(tmp_path: Path) -> None:
    async with running_front(tmp_path, MODELS, observed_images_per_s=4) as front:
        front.replicas.outputs.clear()
        for _ in range(50):
            await classify(front, DARK)
        observed = (await quality(front)).versions[0].observed_image_count
        # What the test itself takes lets a few more through.
        assert 4 <= observed < 50
        assert front.replicas.outputs.count(("probabilities", "embedding")) == observed
        assert front.replicas.outputs.count(("probabilities",)) == 50 - observed


async def test_what_is_carried_to_be_looked_at_is_not_answered(front: Front) -> None:
    pixels = np.zeros((2, 3, 16, 16), np.float32)
    request = oip.ModelInferRequest(
        model_name="class",
        inputs=[{"name": "images", "datatype": "FP32", "shape": pixels.shape}],
        outputs=[{"name": "probabilities"}],
        raw_input_contents=[pixels.tobytes()],
    )
    answer = await front.open.ModelInfer(request)
    assert front.replicas.outputs[-1] == ("probabilities", "embedding")
    assert [output.name for output in answer.outputs] == ["probabilities"]
    assert (await quality(front)).versions[0].observed_image_count == 2


async def test_feedback_is_live_accuracy(front: Front) -> None:
    answer = await classify(front, RED, DARK)
    first, second = (one.categories[0].label for one in answer.results)
    wrong = next(label for label in LABELS if label != second)
    done = await submit(
        front,
        Feedback(prediction_id=answer.prediction_id, label=first),
        Feedback(prediction_id=answer.prediction_id, image_index=1, label=wrong),
    )
    assert (done.correct_count, done.unknown_label_count) == (1, 0)
    (found,) = (await quality(front)).accuracies
    assert (found.model_version, found.feedback_count, found.accuracy) == (answer.model_version, 2, 0.5)
    # The same image again, with second thoughts; and one that is none of the classes.
    await submit(front, Feedback(prediction_id=answer.prediction_id, image_index=1, label=second))
    assert (await quality(front)).accuracies[0].accuracy == 1
    done = await submit(front, Feedback(prediction_id=answer.prediction_id, label="a zebra"))
    assert (done.correct_count, done.unknown_label_count) == (0, 1)
    (found,) = (await quality(front)).accuracies
    assert (found.feedback_count, found.correct_count, found.unknown_label_count) == (2, 1, 1)
    assert front.meter.counts["feedback unknown_label"] == 1


async def test_feedback_is_taken_for_a_version_that_was_quarantined_since(front: Front) -> None:
    answer = await classify(front, RED)
    front.registry.quarantined.add(VersionName.parse(answer.model_version))
    label = answer.results[0].categories[0].label
    done = await submit(front, Feedback(prediction_id=answer.prediction_id, label=label))
    assert (done.correct_count, done.unknown_label_count) == (1, 0)


async def test_feedback_counts_for_answers_of_the_window(front: Front) -> None:
    for hours in (0, 30):
        answer = await classify(front, RED)
        await submit(front, Feedback(prediction_id=answer.prediction_id, label="red"))
        front.clock.time += timedelta(hours=hours)
    await submit(front, Feedback(prediction_id=(await classify(front, RED)).prediction_id, label="red"))
    assert (await quality(front)).accuracies[0].feedback_count == 3
    assert (await quality(front, window=Duration(seconds=86_400))).accuracies[0].feedback_count == 1
    with pytest.raises(grpc.RpcError) as refusal:
        await quality(front, window=Duration(seconds=-1))
    assert list(failed_call(refusal.value).violations) == ["window"]


async def test_feedback_that_is_about_nothing_is_refused_whole(front: Front) -> None:
    answer, other = await classify(front, RED), await classify(front, RED, name="plain")
    good = Feedback(prediction_id=answer.prediction_id, label="red")
    wrong = [
        Feedback(prediction_id=answer.prediction_id, image_index=1, label="red"),
        Feedback(prediction_id=other.prediction_id, label="red"),
        Feedback(prediction_id=answer.prediction_id[:-1], label="red"),
        Feedback(prediction_id="not base64!", label="red"),
        Feedback(label="red"),
    ]
    with pytest.raises(grpc.RpcError) as refusal:
        await submit(front, good, *wrong)
    assert list(failed_call(refusal.value).violations) == [
        "feedback[1].image_index", *(f"feedback[{index}].prediction_id" for index in range(2, 6))
    ]  # fmt: skip
    assert not (await quality(front)).accuracies
    for feedback, field in (
        ([], "feedback"),
        ([Feedback(prediction_id="x")], "feedback[0].label"),
        ([good, Feedback(prediction_id=answer.prediction_id, label="r\0d")], "feedback[1].label"),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            await submit(front, *feedback)
        assert list(failed_call(refusal.value).violations) == [field]
    with pytest.raises(grpc.RpcError) as refusal:
        await submit(front, good, name="gone")
    assert failed_call(refusal.value).reason == "DEPLOYMENT_NOT_FOUND"


def test_an_id_says_what_the_answer_was() -> None:
    from datetime import UTC, datetime

    time = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    said = PredictionId(VersionName("default", "class", 12), "00ff" * 4, time, (0, 70_000, 3))
    text = said.encode(CLASS)
    assert PredictionId.parse(text, CLASS) == said
    assert PredictionId.parse(text, DeploymentName("default", "other")) is None
    for position in range(len(text)):
        other = "A" if text[position] != "A" else "B"
        assert PredictionId.parse(text[:position] + other + text[position + 1 :], CLASS) in (None, said)


async def test_nothing_is_kept_unless_a_deployment_asks(front: Front) -> None:
    await classify(front, RED, DARK)
    assert not await samples(front)
    policy = await front.quality.GetSamplingPolicy(GetSamplingPolicyRequest(deployment=deployment("class")))
    assert policy.max_samples == 0
    assert not policy.HasField("update_time")


async def test_uncertain_and_drifted_images_are_kept_and_become_labelled(front: Front) -> None:
    policy = await keep(front, max_samples=10, uncertain_below=1.0, drifted_beyond=20)
    assert policy.max_size_bytes == 256 * 2**20
    await classify(front, DARK)
    await settled(front)
    front.clock.time += timedelta(seconds=1)
    answer = await classify(front, RED, DARK)
    # The first picture came before the reference was there.
    *_, drifted, uncertain = await samples(front)
    reasons = quality_pb2.Sample.REASON_DRIFTED, quality_pb2.Sample.REASON_UNCERTAIN
    assert (drifted.reason, uncertain.reason) == reasons
    assert drifted.embedding_distance > 20 > uncertain.embedding_distance
    assert drifted.predicted_label == answer.results[0].categories[0].label
    assert drifted.confidence == pytest.approx(answer.results[0].categories[0].probability)
    content = (await front.quality.DownloadSample(DownloadSampleRequest(name=drifted.name))).content
    assert content == plain(RED)[0].content
    assert hashlib.sha256(content).hexdigest() == drifted.sha256
    assert drifted.size_bytes == len(content)
    await submit(front, Feedback(prediction_id=answer.prediction_id, label="red"))
    assert [one.true_label for one in await samples(front)] == ["", "red", ""]
    assert (await quality(front)).sample_count == 3
    await front.quality.DeleteSample(DeleteSampleRequest(name=drifted.name))
    assert len(await samples(front)) == len(front.files.contents) == 2
    for call in (front.quality.DownloadSample(DownloadSampleRequest(name=drifted.name)),
                 front.quality.DeleteSample(DeleteSampleRequest(name=drifted.name))):  # fmt: skip
        with pytest.raises(grpc.RpcError) as refusal:
            await call
        assert failed_call(refusal.value).reason == "SAMPLE_NOT_FOUND"


async def settled(front: Front) -> None:
    """The reference is there."""
    for _ in range(100):
        if (await quality(front)).versions[0].HasField("held_out_drift"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no reference")


async def test_the_oldest_make_room(front: Front) -> None:
    await keep(front, max_samples=3, uncertain_below=1.0)
    for level in range(6):
        front.clock.time += timedelta(seconds=1)
        await classify(front, (level, level, level))
    kept = await samples(front)
    contents = [(await front.quality.DownloadSample(DownloadSampleRequest(name=one.name))).content for one in kept]
    assert contents == [plain((level,) * 3)[0].content for level in (3, 4, 5)]
    assert len(front.files.contents) == 3
    size_bytes = kept[-1].size_bytes
    await keep(front, max_samples=3, uncertain_below=1.0, max_size_bytes=size_bytes)
    assert [one.name for one in await samples(front)] == [kept[-1].name]
    await keep(front, max_samples=0)
    assert not front.files.contents


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"max_samples": -1}, "policy.max_samples"),
        ({"max_samples": 10_001, "uncertain_below": 0.5}, "policy.max_samples"),
        ({"max_samples": 1, "uncertain_below": 1.5}, "policy.uncertain_below"),
        ({"max_samples": 1, "uncertain_below": float("nan")}, "policy.uncertain_below"),
        ({"max_samples": 1, "drifted_beyond": -1}, "policy.drifted_beyond"),
        ({"max_samples": 1, "drifted_beyond": 2, "max_size_bytes": 2**60}, "policy.max_size_bytes"),
        ({"max_samples": 1}, "policy"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused(front: Front, fields: dict[str, float], wrong: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        await keep(front, **fields)
    assert list(failed_call(refusal.value).violations) == [wrong]


async def test_what_a_deployment_leaves_is_removed_with_it(front: Front) -> None:
    await keep(front, max_samples=3, uncertain_below=1.0)
    answer = await classify(front, RED)
    await submit(front, Feedback(prediction_id=answer.prediction_id, label="red"))
    assert len(await samples(front)) == 1
    await front.use_cases.samples.tidy()
    assert len(front.files.contents) == 1
    await front.use_cases.deployments.delete(CLASS, "")
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    front.clock.time += timedelta(seconds=1)
    await front.use_cases.samples.tidy()
    assert not front.files.contents


async def test_what_was_asked_for_survives_a_restart(front: Front) -> None:
    await keep(front, max_samples=3, uncertain_below=1.0)
    running = asyncio.ensure_future(front.use_cases.samples.run())
    try:
        await classify(front, RED)
        while not front.files.contents:
            await asyncio.sleep(0.01)
    finally:
        running.cancel()
    # A process that reads the policies anew keeps what they say, and removes bytes that no row speaks of.
    (known,) = front.files.contents
    front.files.contents[type(known)("default", "class", "lost")] = b"left by a crash"
    front.clock.time += timedelta(seconds=1)
    await classify(front, RED)
    gone = (await samples(front))[-1]
    del front.files.contents[type(known).parse(gone.name)]
    running = asyncio.ensure_future(front.use_cases.samples.run())
    try:
        while len(front.files.contents) > 1:
            await asyncio.sleep(0.01)
        await classify(front, DARK)
        while len(front.files.contents) < 2:
            await asyncio.sleep(0.01)
    finally:
        running.cancel()
    assert known in front.files.contents
    assert gone.name not in [one.name for one in await samples(front)]
