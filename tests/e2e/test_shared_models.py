"""Many models in one shared replica whose memory has room for few: right answers all the while, on a whole platform."""

import contextlib
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np
import psutil
import pytest

from enxerto.inference.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from enxerto.local import processes
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import PROJECT, SIZE, RegistryWriter, TinyModel
from inference_front import infer_request
from platforms import Platform, running_platform

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]

MODELS = 6
FIT = 3
CLIENTS = 6
READY_S = 150.0
TINY = [TinyModel(seed, copies=150_000) for seed in range(MODELS)]
"""Of 7 MB each."""
IMAGES = np.random.default_rng(0).random((4, 3, SIZE, SIZE), np.float32)


@dataclass
class Shared:
    """A platform with `MODELS` shared deployments, each of a model that its alias leads to."""

    platform: Platform
    registry: RegistryWriter
    deployments: deployment_service_pb2_grpc.DeploymentServiceStub
    open: GRPCInferenceServiceStub
    answers: list[np.ndarray] = field(default_factory=list)
    """By plain ONNX Runtime, (images, classes)."""

    def ready(self, index: int, version: str) -> None:
        name, deadline = f"{PROJECT}/deployments/shared-{index}", time.monotonic() + READY_S
        while True:
            found = self.deployments.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=name), timeout=10)
            if found.serving_version == version and found.state == deployment_pb2.Deployment.STATE_READY:
                return
            assert found.state != deployment_pb2.Deployment.STATE_FAILED, found
            assert time.monotonic() < deadline, found
            time.sleep(0.2)

    def ask(self, index: int, image: int) -> np.ndarray:
        request = infer_request(f"shared-{index}", IMAGES[image : image + 1])
        answer = self.open.ModelInfer(request, timeout=30)
        return np.frombuffer(answer.raw_output_contents[0], "<f4")

    def answers_rightly(self, index: int) -> bool:
        try:
            return np.allclose(self.ask(index, 0), self.answers[index][0], atol=1e-5)
        except grpc.RpcError:
            return False

    def replicas(self) -> list[psutil.Process]:
        family = processes.family(self.platform.state.instance)
        return [one for one in family if "ServeReplica:pool" in one.name()]

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.platform.metrics_url("inference"), timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        prefix = "enxerto_inference_pool_"
        pairs = [line.removeprefix(prefix).rsplit(" ", 1) for line in lines if line.startswith(prefix)]
        return {name: float(value) for name, value in pairs}


@contextlib.contextmanager
def running(settings: Mapping[str, str]) -> Iterator[Shared]:
    """All deployments, ready, on a platform whose inference service has these settings."""
    budget = int((FIT + 0.5) * max(len(tiny.data) for tiny in TINY))
    with running_platform() as platform:
        platform.restart_with("inference", {"ENXERTO_INFERENCE_POOL_MEMORY_BYTES": str(budget), **settings})
        registry = RegistryWriter(platform.address("registry"))
        with grpc.insecure_channel(platform.address("inference")) as channel:
            stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
            shared = Shared(platform, registry, stub, GRPCInferenceServiceStub(channel))
            versions = []
            for index, tiny in enumerate(TINY):
                model = registry.create_model(f"shared-{index}")
                versions.append(registry.add_version(model, tiny))
                registry.point(model, "production", versions[-1])
                deployment = deployment_pb2.Deployment(
                    model_version=f"{model}/versions/production",
                    placement=deployment_pb2.Deployment.PLACEMENT_SHARED,
                )
                stub.CreateDeployment(
                    deployment_service_pb2.CreateDeploymentRequest(
                        parent=PROJECT, deployment_id=f"shared-{index}", deployment=deployment
                    ),
                    timeout=30,
                )
                shared.answers.append(OnnxModel(tiny.data).run(IMAGES)["probabilities"])
            for index, version in enumerate(versions):
                shared.ready(index, version)
            yield shared
        registry.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with running({}) as shared:
        yield shared


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wrong_answers(shared: Shared, requests: int, right: dict[int, list[np.ndarray]]) -> list[str]:
    """Ask for all models from many clients; `right` are the answers that are right for a model."""
    wrong: list[str] = []

    def client(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(requests // CLIENTS):
            index, image = choice.randrange(MODELS), choice.randrange(len(IMAGES))
            try:
                found = shared.ask(index, image)
            except grpc.RpcError as error:
                wrong.append(str(error))
                continue
            if not any(np.allclose(found, answers[image], atol=1e-5) for answers in right[index]):
                wrong.append(f"shared-{index} answered {found}")

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return wrong


def test_all_models_answer_rightly_behind_a_budget_for_half_of_them(shared: Shared) -> None:
    assert wrong_answers(shared, 600, {index: [one] for index, one in enumerate(shared.answers)}) == []
    until(lambda: shared.metrics()["evictions_total"] > MODELS - FIT)
    found = shared.metrics()
    assert 1 <= found["models"] <= FIT
    assert found["held_bytes"] <= found["budget_bytes"]
    assert found["evictions_total"] == found["loads_total"] - found["models"]
    assert len(shared.replicas()) == 1


def test_an_alias_moves_under_load_without_a_failed_or_wrong_answer(shared: Shared) -> None:
    new = TinyModel(99, copies=150_000)
    model = f"{PROJECT}/models/shared-0"
    version = shared.registry.add_version(model, new)
    answers = OnnxModel(new.data).run(IMAGES)["probabilities"]
    right = {index: [one] for index, one in enumerate(shared.answers)}
    right[0].append(answers)
    wrong: list[str] = []
    load = threading.Thread(target=lambda: wrong.extend(wrong_answers(shared, 600, right)))
    load.start()
    shared.registry.point(model, "production", version)
    shared.ready(0, version)
    load.join()
    shared.answers[0] = answers
    assert wrong == []
    np.testing.assert_allclose(shared.ask(0, 0), answers[0], atol=1e-5)


def test_a_shared_replica_that_dies_is_replaced_and_loads_again(shared: Shared) -> None:
    (replica,) = shared.replicas()
    replica.kill()
    replica.wait(30)
    until(lambda: shared.answers_rightly(1))
    assert wrong_answers(shared, 60, {index: [one] for index, one in enumerate(shared.answers)}) == []


def test_the_pool_ends_with_its_last_deployment(shared: Shared) -> None:
    for index in range(MODELS):
        name = f"{PROJECT}/deployments/shared-{index}"
        shared.deployments.DeleteDeployment(deployment_service_pb2.DeleteDeploymentRequest(name=name), timeout=10)
    until(lambda: not shared.replicas())
    assert shared.replicas() == []


def test_the_models_of_a_replica_that_dies_move_to_the_other_one() -> None:
    with running({"ENXERTO_INFERENCE_POOL_REPLICAS": "2"}) as shared:
        right = {index: [one] for index, one in enumerate(shared.answers)}
        assert wrong_answers(shared, 300, right) == []
        first, second = shared.replicas()
        until(lambda: shared.metrics()["models"] > FIT)
        first.kill()
        until(lambda: all(shared.answers_rightly(index) for index in range(MODELS)))
        assert wrong_answers(shared, 120, right) == []
        assert second.is_running()


def test_shared_models_answer_through_serves_proxy() -> None:
    with running({"ENXERTO_INFERENCE_REPLICA_PATH": "proxy"}) as shared:
        assert wrong_answers(shared, 300, {index: [one] for index, one in enumerate(shared.answers)}) == []
        until(lambda: 1 <= shared.metrics()["models"] <= FIT)
