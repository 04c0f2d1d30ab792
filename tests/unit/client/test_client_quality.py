"""Quality in production, as callers of the client see it."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from enxerto.client import Client
from enxerto.inference.v1 import quality_pb2, quality_service_pb2, vision_service_pb2
from fakes.scripted_services import ScriptedServices, refuse

VERSION = "projects/default/models/m/versions/1"
PETS = "projects/default/deployments/pets"


def test_what_is_known_of_a_deployment(client: Client, services: ScriptedServices) -> None:
    answer = quality_pb2.DeploymentQuality(deployment=PETS, sample_count=2, sample_size_bytes=7)
    seen = answer.versions.add(model_version=VERSION, observed_image_count=9, confidence_shares=[0.5, 0.5])
    seen.class_shares.add(label="cat", index=1, share=0.75)
    known = answer.versions.add(model_version=VERSION, embedding_drift=0.0, held_out_drift=0.25, drifted=True)
    answer.accuracies.add(model_version=VERSION, feedback_count=4, correct_count=3, accuracy=0.75)
    services.on("GetDeploymentQuality", answer)
    found = client.quality("pets", window=timedelta(hours=2))
    request = services.requests("GetDeploymentQuality")[0]
    assert (request.deployment, request.window.seconds) == (PETS, 7200)
    first, second = found.versions
    assert (first.embedding_drift, first.held_out_drift) == (None, None)
    assert (second.embedding_drift, second.held_out_drift, second.drifted) == (0.0, 0.25, known.drifted)
    assert (first.class_shares[0].label, first.class_shares[0].share) == ("cat", 0.75)
    assert (found.accuracies[0].accuracy, found.accuracies[0].feedback) == (0.75, 4)
    assert (found.samples, found.samples_bytes) == (2, 7)


def test_feedback_names_the_answer_and_the_image(client: Client, services: ScriptedServices) -> None:
    def classify(request: Any, _context: object) -> vision_service_pb2.ClassifyResponse:
        response = vision_service_pb2.ClassifyResponse(prediction_id=f"id{len(request.images)}")
        for _ in request.images:
            response.results.add().categories.add(label="cat", probability=1)
        return response

    services.on("Classify", classify)
    services.on("SubmitFeedback", quality_service_pb2.SubmitFeedbackResponse(correct_count=2))
    predictions = client.classify("pets", [b"x"] * 66)
    assert client.feedback("pets", [(predictions[1], "dog"), (predictions[65], "cat")]) == 2
    (request,) = services.requests("SubmitFeedback")
    assert request.deployment == PETS
    assert [(one.prediction_id, one.image_index, one.label) for one in request.feedback] == [
        ("id64", 1, "dog"), ("id2", 1, "cat")
    ]  # fmt: skip
    client.feedback("pets", [(predictions[0], "cat")] * 1500)
    assert [len(one.feedback) for one in services.requests("SubmitFeedback")[1:]] == [1000, 500]
    assert client.feedback_by_id("pets", "id9", "cat", image_index=3)


def test_samples_become_folders_that_can_be_imported(
    client: Client, services: ScriptedServices, tmp_path: Path
) -> None:
    page = quality_service_pb2.ListSamplesResponse()
    labels = [("cat", ""), ("cat", "dog"), ("../../etc", ""), ("cat", "..")]
    for number, (predicted, true) in enumerate(labels):
        page.samples.add(name=f"{PETS}/samples/s{number}", predicted_label=predicted, true_label=true)
    page.samples[0].reason = quality_pb2.Sample.REASON_DRIFTED
    services.on("ListSamples", page)
    content = quality_service_pb2.DownloadSampleResponse(content=b"\xff\xd8jpeg")
    services.on("DownloadSample", content)
    assert next(one.reason for one in client.samples("pets")) == "DRIFTED"
    paths = client.download_samples("pets", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "unlabelled/cat/s0.jpg", "labelled/dog/s1.jpg", "unlabelled/%2E%2E%2F..%2Fetc/s2.jpg", "labelled/%2E%2E/s3.jpg"
    ]  # fmt: skip
    assert all(path.read_bytes() == content.content for path in paths)


def test_labels_keep_folders_of_their_own(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    labels = ["a/b", "a:b", "a_b", "a%2Fb", "a", "a.", " a", "été 猫"]
    page = quality_service_pb2.ListSamplesResponse()
    for number, label in enumerate(labels):
        page.samples.add(name=f"{PETS}/samples/s{number}", true_label=label)
    services.on("ListSamples", page)
    services.on("DownloadSample", quality_service_pb2.DownloadSampleResponse(content=b"BM"))
    folders = [path.parent.name for path in client.download_samples("pets", tmp_path)]
    assert [unquote(folder) for folder in folders] == labels
    assert folders[-1] == labels[-1]


def test_a_sample_that_is_gone_meanwhile_is_left_out(
    client: Client, services: ScriptedServices, tmp_path: Path
) -> None:
    page = quality_service_pb2.ListSamplesResponse()
    for number in range(3):
        page.samples.add(name=f"{PETS}/samples/s{number}", predicted_label="cat")

    def download(request: Any, context: Any) -> quality_service_pb2.DownloadSampleResponse:
        if request.name.endswith("s1"):
            refuse(context, "NOT_FOUND", "the sample is gone")
        return quality_service_pb2.DownloadSampleResponse(content=b"BM")

    services.on("ListSamples", page)
    services.on("DownloadSample", download)
    assert [path.name for path in client.download_samples("pets", tmp_path)] == ["s0.bmp", "s2.bmp"]


def test_a_policy_is_sent_whole(client: Client, services: ScriptedServices) -> None:
    services.on("UpdateSamplingPolicy", lambda request, _context: request.policy)
    policy = client.keep_samples("pets", 100, uncertain_below=0.5, max_size_bytes=1000)
    assert (policy.deployment, policy.max_samples, policy.uncertain_below, policy.max_size_bytes) == (
        PETS,
        100,
        0.5,
        1000,
    )
    services.on("GetSamplingPolicy", quality_pb2.SamplingPolicy(deployment=PETS))
    assert client.sampling_policy("pets").max_samples == 0
