"""Serving through real processes: front, registry, Ray Serve."""

import io
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from PIL import Image

from enxerto.inference.v1 import (
    deployment_pb2,
    replica_service_pb2,
    replica_service_pb2_grpc,
    vision_pb2,
    vision_service_pb2,
)
from enxerto.local.ports import Ports
from enxerto.vision.images import load, to_batch
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import LABELS, SIZE, TinyDetector, TinyModel, TinyNegative, TinySegmenter
from grpc_details import failed_call
from inference_images import BAD, GOOD, encode

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("platform"), pytest.mark.timeout(400)]


def probabilities(response: vision_service_pb2.ClassifyResponse, index: int = 0) -> list[float]:
    by_label = {category.label: category.probability for category in response.results[index].categories}
    return [by_label[label] for label in LABELS]


def directly(tiny: TinyModel, *images: bytes) -> np.ndarray:
    classifier = OnnxModel(tiny.data)
    batch = to_batch([load(image, classifier.card.preprocess) for image in images])
    return classifier.run(batch)["probabilities"]


def test_classify_equals_onnx_runtime(served) -> None:
    images = list(GOOD.values())
    response = served.front.classify(served.deployment, *images)
    answers = [probabilities(response, index) for index in range(len(images))]
    np.testing.assert_allclose(answers, directly(served.tiny, *images), atol=1e-4)
    assert response.model_version.startswith(f"{served.model}/versions/")
    assert response.timings.compute.ToTimedelta().total_seconds() > 0


@pytest.mark.parametrize("kind", GOOD)
def test_every_odd_image_is_answered(served, kind: str) -> None:
    response = served.front.classify(served.deployment, GOOD[kind], top_k=1)
    assert len(response.results[0].categories) == 1


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_named_and_the_others_in_its_batch_are_answered(served, kind: str) -> None:
    image, reason = BAD[kind]
    good = GOOD["jpeg"]
    answered: list[bool] = []

    def ask() -> None:
        answered.append(bool(served.front.classify(served.deployment, good).results))

    neighbours = [threading.Thread(target=ask) for _ in range(4)]
    for neighbour in neighbours:
        neighbour.start()
    with pytest.raises(grpc.RpcError) as refusal:
        served.front.classify(served.deployment, good, image, good)
    for neighbour in neighbours:
        neighbour.join()
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    ((field, description),) = failed_call(refusal.value).violations.items()
    assert field == "images[1].content"
    assert reason in description
    assert answered == [True] * 4


def test_all_bad_images_of_a_request_are_named(served) -> None:
    images = [image for image, _ in BAD.values()]
    with pytest.raises(grpc.RpcError) as refusal:
        served.front.classify(served.deployment, GOOD["jpeg"], *[image for image in images if image])
    named = [f"images[{index}].content" for index in range(1, 1 + sum(map(bool, images)))]
    assert list(failed_call(refusal.value).violations) == named


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"deployment": "projects/default/deployments/none"}, grpc.StatusCode.NOT_FOUND, None),
        ({"deployment": "projects/default/deployments/a/b"}, grpc.StatusCode.INVALID_ARGUMENT, "deployment"),
        ({"images": []}, grpc.StatusCode.INVALID_ARGUMENT, "images"),
        ({"images": [{"content": b"x"}] * 65}, grpc.StatusCode.INVALID_ARGUMENT, "images"),
        ({"top_k": -1}, grpc.StatusCode.INVALID_ARGUMENT, "top_k"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(served, change: dict, code: grpc.StatusCode, field: str | None) -> None:
    good = {"deployment": served.deployment, "images": [{"content": GOOD["png"]}]}
    with pytest.raises(grpc.RpcError) as refusal:
        served.front.vision.Classify(vision_service_pb2.ClassifyRequest(**{**good, **change}), timeout=20)
    assert refusal.value.code() is code
    if field:
        assert list(failed_call(refusal.value).violations) == [field]


def test_what_cannot_be_served_cannot_be_deployed(served) -> None:
    quarantined = served.registry.add_version(served.model, TinyModel(9), agreement=0.5)
    for reference, code in [
        (f"{served.model}/versions/none", grpc.StatusCode.NOT_FOUND),
        ("projects/default/models/none/versions/1", grpc.StatusCode.NOT_FOUND),
        (quarantined, grpc.StatusCode.FAILED_PRECONDITION),
        ("models/tiny", grpc.StatusCode.INVALID_ARGUMENT),
    ]:
        with pytest.raises(grpc.RpcError) as refusal:
            served.front.create("other", reference)
        assert refusal.value.code() is code, reference


def test_a_replica_answers_nobody_without_the_secret(served) -> None:
    first, _ = Ports(int(served.front.address.rpartition(":")[2]) - Ports(0)["inference"]).replica_grpc
    refused = 0
    request = replica_service_pb2.PredictRequest(model_version=served.first)
    for port in range(first, first + 20):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = replica_service_pb2_grpc.ReplicaServiceStub(channel)
            for metadata in [(), (("x-enxerto-replica-secret", "guess"),)]:
                with pytest.raises(grpc.RpcError) as refusal:
                    stub.Predict(request, metadata=metadata, timeout=10)
                if refusal.value.code() is grpc.StatusCode.UNAVAILABLE:
                    break
                assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
                refused += 1
    assert refused >= 2


TRITON = """
    import asyncio, json, queue, sys
    import numpy as np
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as triton_aio
    url, model, tensor_file, image_file = sys.argv[1:]
    tensor = np.load(tensor_file)
    image = open(image_file, "rb").read()

    def inputs():
        pixels = triton.InferInput("images", tensor.shape, "FP32")
        pixels.set_data_from_numpy(tensor)
        encoded = triton.InferInput("images", [2], "BYTES")
        encoded.set_data_from_numpy(np.array([image, image], dtype=np.object_))
        return [pixels], [encoded]

    async def asynchronous():
        async with triton_aio.InferenceServerClient(url) as client:
            pixels, _ = inputs()
            return (await client.infer(model, pixels)).as_numpy("probabilities")

    def as_pixels():
        values = np.round(tensor.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        pixels = triton.InferInput("images", values.shape, "UINT8")
        pixels.set_data_from_numpy(values)
        return [pixels]

    def streamed(client):
        answers = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for index in range(3):
            client.async_stream_infer(model if index != 1 else "missing", inputs()[0], request_id=str(index))
        seen = [answers.get(timeout=30) for _ in range(3)]
        client.stop_stream()
        return [str(error) if error else result.get_response().id for result, error in seen]

    with triton.InferenceServerClient(url) as client:
        pixels, encoded = inputs()
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
        assert not client.is_model_ready("missing")
        metadata = client.get_model_metadata(model, as_json=True)
        wanted = [triton.InferRequestedOutput("probabilities")]
        first = client.infer(model, pixels, request_id="my-id", outputs=wanted)
        second = client.infer(model, encoded)
        errors = {}
        for name, call in {
            "version": lambda: client.infer(model, pixels, model_version="4242"),
            "model": lambda: client.infer("missing", pixels),
            "output": lambda: client.infer(model, pixels, outputs=[triton.InferRequestedOutput("logits")]),
        }.items():
            try:
                call()
            except triton.InferenceServerException as error:
                errors[name] = error.status()
        print(json.dumps({
            "server": client.get_server_metadata(as_json=True),
            "metadata": metadata,
            "id": first.get_response().id,
            "tensor": first.as_numpy("probabilities").tolist(),
            "bytes": second.as_numpy("probabilities").tolist(),
            "aio": asyncio.run(asynchronous()).tolist(),
            "pixels": client.infer(model, as_pixels(), model_version="production").as_numpy("probabilities").tolist(),
            "stream": streamed(client),
            "statistics": client.get_inference_statistics(model, as_json=True)["model_stats"],
            "errors": errors,
        }))
"""


@pytest.fixture
def triton(served, tmp_path) -> dict:
    """What an unmodified Triton client sees. Its messages have the names of ours, so it gets a process of its own."""
    image = GOOD["jpeg"]
    np.save(tmp_path / "tensor.npy", to_batch([load(image, OnnxModel(served.tiny.data).card.preprocess)]))
    (tmp_path / "image").write_bytes(image)
    arguments = [served.front.address, "tiny", str(tmp_path / "tensor.npy"), str(tmp_path / "image")]
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(TRITON), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_an_unmodified_triton_client_gets_the_same(served, triton: dict) -> None:
    image = GOOD["jpeg"]
    typed = probabilities(served.front.classify(served.deployment, image))
    for answer in (triton["tensor"], triton["aio"], triton["bytes"], triton["pixels"]):
        np.testing.assert_allclose(answer, [typed] * len(answer), atol=1e-4)
    assert len(triton["bytes"]) == 2
    np.testing.assert_allclose([typed], directly(served.tiny, image), atol=1e-4)
    assert triton["id"] == "my-id"
    assert (triton["stream"][0], triton["stream"][2]) == ("0", "2")
    assert "was not found" in triton["stream"][1]
    (statistics,) = triton["statistics"]
    assert int(statistics["inference_count"]) >= 7
    assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0
    assert triton["server"]["name"] == "enxerto"
    assert {(entry["datatype"], tuple(entry["shape"])) for entry in triton["metadata"]["inputs"]} == {
        ("FP32", ("-1", "3", str(SIZE), str(SIZE))),
        ("BYTES", ("-1",)),
    }
    assert {name: status.rpartition(".")[2] for name, status in triton["errors"].items()} == {
        "version": "NOT_FOUND",
        "model": "NOT_FOUND",
        "output": "INVALID_ARGUMENT",
    }


def test_a_deadline_is_kept(served) -> None:
    large = encode(Image.effect_noise((2500, 2500), 50), "PNG")
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as refusal:
        served.front.classify(served.deployment, large, timeout_s=0.02)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 5
    assert served.front.classify(served.deployment, GOOD["png"]).results


class Client(threading.Thread):
    """Asks without a pause and keeps the versions that answered."""

    def __init__(self, ask: Callable[[], str], stop: threading.Event) -> None:
        super().__init__()
        self._ask, self._stop_asking = ask, stop
        self.versions: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stop_asking.is_set():
            try:
                self.versions.append(self._ask())
            except grpc.RpcError as error:
                self.failures.append(str(error))

    @property
    def changes(self) -> int:
        return sum(before != after for before, after in zip(self.versions, self.versions[1:], strict=False))


def test_moving_an_alias_under_load_fails_nothing_and_changes_once(served) -> None:
    model = served.registry.create_model("moving")
    one, two = (served.registry.add_version(model, TinyModel(seed)) for seed in (1, 2))
    served.registry.point(model, "production", one)
    name = served.front.create("moving", f"{model}/versions/production").name
    served.front.ready(name)
    stop = threading.Event()
    clients = [Client(lambda: served.front.classify(name, GOOD["png"]).model_version, stop) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        served.registry.point(model, "production", two)
        served.front.wait(name, lambda deployment: deployment.serving_version == two)
        # Long enough for the old application to be drained and removed while requests go on.
        time.sleep(5)
    finally:
        stop.set()
        for client in clients:
            client.join()
        served.front.delete(name)
    assert [client.failures for client in clients] == [[]] * 8
    assert [client.changes for client in clients] == [1] * 8
    assert {client.versions[-1] for client in clients} == {two}


def test_a_version_that_cannot_start_leaves_the_old_one_serving(served) -> None:
    model = served.registry.create_model("failing")
    good = served.registry.add_version(model, TinyModel(1))
    broken = served.registry.add_version(model, TinyModel(2), data=b"this is no ONNX file")
    served.registry.point(model, "production", good)
    name = served.front.create("failing", f"{model}/versions/production").name
    served.front.ready(name)
    served.registry.point(model, "production", broken)
    deployment = served.front.wait(name, lambda deployment: deployment.HasField("error"))
    assert deployment.state == deployment_pb2.Deployment.STATE_READY
    assert (deployment.serving_version, deployment.target_version) == (good, broken)
    assert "ONNX Runtime cannot load the model" in deployment.error.message
    assert "Traceback" not in deployment.error.message
    assert served.front.classify(name, GOOD["png"]).model_version == good
    served.front.delete(name)


SCENE = np.zeros((96, 128, 3), np.uint8)
SCENE[40:80, 20:60] = (255, 0, 0)


@pytest.fixture(scope="module")
def of_every_task(served) -> Iterator[dict[str, str]]:
    """Deployments of a detector, a segmenter and a painter; names by task."""
    names = {}
    for tiny in (TinyDetector(), TinySegmenter(), TinyNegative()):
        task = tiny.task.value.lower()
        model = served.registry.create_model(task, tiny.task)
        names[task] = served.front.create(task, served.registry.add_version(model, tiny)).name
    for name in names.values():
        served.front.ready(name)
    yield names
    for name in names.values():
        served.front.delete(name)


def test_objects_masks_and_paintings_come_from_replicas(served, of_every_task: dict[str, str]) -> None:
    images = [{"content": encode(Image.fromarray(SCENE), "PNG")}]
    vision = served.front.vision
    request = vision_service_pb2.DetectRequest(deployment=of_every_task["detection"], images=images)
    ((found,),) = [result.objects for result in vision.Detect(request, timeout=30).results]
    box = found.box
    assert found.label == "red"
    np.testing.assert_allclose([box.x_min, box.y_min, box.x_max, box.y_max], [20, 40, 60, 80], atol=2)
    request = vision_service_pb2.SegmentRequest(
        deployment=of_every_task["segmentation"], images=images, format=vision_pb2.MASK_FORMAT_POLYGONS
    )
    (mask,) = vision.Segment(request, timeout=30).results
    assert [segment.label for segment in mask.segments] == ["black", "red"]
    assert [polygon.hole for polygon in mask.segments[0].polygons] == [False, True]
    request = vision_service_pb2.StylizeRequest(deployment=of_every_task["style"], images=images)
    response = vision.Stylize(request, timeout=30)
    painted = np.asarray(Image.open(io.BytesIO(response.results[0].content)))
    assert painted.shape == SCENE.shape
    # The edges are soft: the network sees half the size.
    for rows, columns in ((slice(44, 76), slice(24, 56)), (slice(0, 36), slice(0, 128))):
        np.testing.assert_allclose(painted[rows, columns], 255 - SCENE[rows, columns], atol=2)
    assert response.timings.encode.ToTimedelta().total_seconds() > 0


def test_another_task_is_refused(served, of_every_task: dict[str, str]) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        served.front.classify(of_every_task["detection"], GOOD["png"])
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed_call(refusal.value).reason == "TASK_MISMATCH"


def test_a_killed_front_finds_its_deployments_again(served) -> None:
    served.platform.kill("inference")
    served.platform.start_missing()
    served.front.ready(served.deployment)
    deadline = time.monotonic() + 60
    answers: set[str] = set()
    while not answers and time.monotonic() < deadline:
        # What is not back yet says so, and nothing else.
        try:
            answers.add(served.front.classify(served.deployment, GOOD["png"]).model_version)
        except grpc.RpcError as error:
            answers |= {str(error)} if error.code() is not grpc.StatusCode.UNAVAILABLE else set()
            time.sleep(0.1)
    assert answers == {served.first}
