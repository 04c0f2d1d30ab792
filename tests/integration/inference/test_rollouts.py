"""Shares, shadows, golden inputs and scale of a deployment on the session's platform, under load."""

import contextlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, vision_pb2, vision_service_pb2
from enxerto.local.layout import Layout
from enxerto.local.ports import Ports
from enxerto.vision.onnx.golden import GOLDEN_FILE, make_golden, write_golden
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import SIZE, TinyModel
from grpc_details import failed_call
from inference_images import GOOD

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.xdist_group("platform"),
    pytest.mark.timeout(600),
]

CLIENTS = 4
RAY = "Ray's dashboard"


def ask(served, name: str, *, key: str = "") -> str:
    request = vision_service_pb2.ClassifyRequest(deployment=name, images=[vision_pb2.Image(content=GOOD["png"])])
    metadata = [("x-enxerto-sticky-key", key)] if key else []
    return served.front.vision.Classify(request, timeout=30, metadata=metadata).model_version


def update(served, name: str, **fields: Any) -> deployment_pb2.Deployment:
    request = deployment_service_pb2.UpdateDeploymentRequest(
        deployment=deployment_pb2.Deployment(name=name, **fields), update_mask=FieldMask(paths=list(fields))
    )
    return served.front.deployments.UpdateDeployment(request, timeout=30)


def wait_for_replicas(served, name: str, count: int, version: int = 1, timeout_s: float = 120) -> None:
    """Until Serve runs so many replicas of a version of the deployment, and the front has had time to find them."""
    base = int(served.front.address.rpartition(":")[2]) - Ports(0)["inference"]
    url = f"http://127.0.0.1:{Ports(base)[RAY]}/api/serve/applications/"
    token = Layout(served.platform.home).ray_token.read_text().strip()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    identity, deadline = name.rpartition("/")[2], time.monotonic() + timeout_s
    while True:
        with urllib.request.urlopen(request, timeout=20) as answer:
            applications = json.load(answer)["applications"]
        found = applications[f"default.{identity}.default.{identity}.v{version}"]
        # While Serve takes over a change it may show none.
        states = [replica["state"] for replica in found["deployments"].get("replica", {}).get("replicas", ())]
        if states == ["RUNNING"] * count:
            break
        assert time.monotonic() < deadline, f"still {states}"
        time.sleep(0.5)
    time.sleep(2)


class Load:
    """Clients that ask without a pause, and whoever was refused."""

    def __init__(self, served, name: str) -> None:
        self.versions: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._run, args=(served, name)) for _ in range(CLIENTS)]

    def _run(self, served, name: str) -> None:
        while not self._stop.is_set():
            try:
                self.versions.append(ask(served, name))
            except grpc.RpcError as error:
                self.failures.append(str(error))

    def wait(self, until: Callable[[list[str]], bool], timeout_s: float = 60) -> None:
        """Until the answers from now on are as they should be."""
        seen, deadline = len(self.versions), time.monotonic() + timeout_s
        while not until(self.versions[seen:]):
            assert time.monotonic() < deadline, f"still {set(self.versions[seen:])}"
            time.sleep(0.1)

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()


@pytest.fixture(scope="module")
def rolled(served) -> Iterator[tuple[str, str, str]]:
    """A deployment that answers with the first of a model's two versions; its name, and the versions' names."""
    model = served.registry.create_model("rolled")
    one, two = (served.registry.add_version(model, TinyModel(seed)) for seed in (1, 2))
    served.registry.point(model, "production", one)
    served.registry.point(model, "candidate", two)
    name = served.front.create("rolled", f"{model}/versions/production").name
    served.front.ready(name)
    yield name, one, two
    with contextlib.suppress(grpc.RpcError):
        served.front.delete(name)


def candidate(one: str) -> str:
    return f"{one.rpartition('/')[0]}/candidate"


def test_a_canary_comes_grows_and_goes_without_a_failed_request(served, rolled: tuple[str, str, str]) -> None:
    name, one, two = rolled
    with Load(served, name) as load:
        update(served, name, traffic=[{"model_version": candidate(one), "percent": 30}])
        seen = served.front.wait(name, lambda now: now.traffic[0].serving_version == two)
        assert seen.serving_version == one
        load.wait(lambda answers: {one, two} <= set(answers))
        placed = {key: ask(served, name, key=key) for key in map(str, range(40))}
        assert placed == {key: ask(served, name, key=key) for key in placed}
        update(served, name, traffic=[{"model_version": candidate(one), "percent": 90}])
        grown = {key: ask(served, name, key=key) for key in placed}
        assert all(grown[key] == two for key, version in placed.items() if version == two)
        update(served, name, traffic=[])
        load.wait(lambda answers: len(answers) > 50 and set(answers[-40:]) == {one})
        # Long enough for the canary's replicas to be drained and removed.
        time.sleep(3)
    assert load.failures == []


def test_a_shadow_is_compared_and_nobody_waits_for_it(served, rolled: tuple[str, str, str]) -> None:
    name, one, two = rolled
    with Load(served, name) as load:
        update(served, name, shadow={"model_version": candidate(one), "percent": 50})
        found = served.front.wait(name, lambda now: now.shadow.comparison.image_count >= 20).shadow.comparison
    update(served, name, shadow=None)
    assert set(load.versions) == {one}
    assert load.failures == []
    assert (found.main_version, found.shadow_version, found.failed_count) == (one, two, 0)
    picture = np.full((1, 3, SIZE, SIZE), 0.5, np.float32)
    assert OnnxModel(TinyModel(1).data).run(picture)["probabilities"].shape == (1, 4)
    # All requests bring the same picture, so that the versions agree on all or on none.
    assert found.agreement in {0.0, 1.0}


def test_a_watcher_sees_a_version_fail_its_golden_inputs_and_the_old_one_serve_on(
    served, rolled: tuple[str, str, str], tmp_path: Path
) -> None:
    name, one, _ = rolled
    model, tiny, other = one.rpartition("/versions/")[0], TinyModel(1), TinyModel(4)
    pixels = np.random.default_rng(1).random((4, 3, SIZE, SIZE)).astype(np.float32)
    write_golden(make_golden(tiny.task, OnnxModel(other.data).run, pixels), tmp_path / "golden.npz")
    wrong = served.registry.add_version(model, tiny, files={GOLDEN_FILE: (tmp_path / "golden.npz").read_bytes()})
    request = deployment_service_pb2.WatchDeploymentRequest(name=name)
    watched = served.front.deployments.WatchDeployment(request, timeout=200)
    with Load(served, name) as load:
        served.registry.point(model, "production", wrong)
        last = next(message.deployment for message in watched if message.deployment.HasField("error"))
    watched.cancel()
    served.registry.point(model, "production", one)
    served.front.wait(name, lambda now: not now.HasField("error"))
    assert (last.serving_version, last.target_version) == (one, wrong)
    assert "golden inputs" in last.error.message
    assert load.failures == []
    assert set(load.versions) == {one}


def test_replicas_come_and_go_under_load_and_the_load_decides(served, rolled: tuple[str, str, str]) -> None:
    name, one, _ = rolled
    with Load(served, name) as load:
        update(served, name, replicas=2)
        wait_for_replicas(served, name, 2)
        update(served, name, replicas=1)
        wait_for_replicas(served, name, 1)
        # Two clients would do: their batches count, and a tenth of one in flight asks for more. On a busy machine a
        # replica takes seconds to start, in which a look that finds none in flight must not take it back.
        soon, late = Duration(seconds=1), Duration(seconds=10)
        bounds = {"max_replicas": 2, "target_ongoing_batches": 0.1, "upscale_delay": soon, "downscale_delay": late}
        update(served, name, autoscaling=bounds)
        wait_for_replicas(served, name, 2)
    wait_for_replicas(served, name, 1)
    assert load.failures == []
    assert set(load.versions) == {one}


def test_a_new_version_begins_with_as_many_replicas_as_the_old_one_has(served, rolled: tuple[str, str, str]) -> None:
    name, one, two = rolled
    model, delay = one.rpartition("/versions/")[0], Duration(seconds=300)
    update(served, name, autoscaling=None, replicas=2)
    wait_for_replicas(served, name, 2)
    with Load(served, name) as load:
        # Whatever the load is, nothing is added or removed before the test ends.
        bounds = {"max_replicas": 2, "upscale_delay": delay, "downscale_delay": delay}
        update(served, name, replicas=1, autoscaling=bounds)
        wait_for_replicas(served, name, 2)
        served.registry.point(model, "production", two)
        served.front.wait(name, lambda now: now.serving_version == two)
        wait_for_replicas(served, name, 2, version=2)
        served.registry.point(model, "production", one)
        served.front.wait(name, lambda now: now.serving_version == one)
        # The second version kept what it began with.
        wait_for_replicas(served, name, 2)
        update(served, name, autoscaling=None)
        wait_for_replicas(served, name, 1)
    assert load.failures == []
    assert set(load.versions) == {one, two}


def test_what_cannot_be_asked_for_is_named(served, rolled: tuple[str, str, str]) -> None:
    name, one, _ = rolled
    with pytest.raises(grpc.RpcError) as refusal:
        update(served, name, traffic=[{"model_version": candidate(one), "percent": 100}], autoscaling={})
    assert set(failed_call(refusal.value).violations) == {
        "deployment.traffic[0].percent",
        "deployment.autoscaling.max_replicas",
    }
