"""What callers notice while a deployment changes: `python tests/benchmarks/serving/changes.py`.

Clients ask without a pause through an alias flip, a traffic change and a new replica. Each answer is held against plain
ONNX Runtime of the version that it names; the slowest requests of each change are compared with the quiet time before.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.field_mask_pb2 import FieldMask

from benchmark_models import THREADS, TOLERANCE, export_model, variants
from enxerto.inference.oip import open_inference_pb2, open_inference_pb2_grpc
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from enxerto.local import processes
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import PROJECT, RegistryWriter, TinyModel
from platforms import Platform, running_platform

NAME = f"{PROJECT}/deployments/bench"
WAIT_S = 120.0


@dataclass
class Window:
    """The requests that ended in some stretch of time."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: int = 0

    @property
    def p99_ms(self) -> float:
        """Of the requests that were answered."""
        return statistics.quantiles(self.latencies_ms, n=100)[98]


class Load:
    """Clients that ask without a pause, over one channel."""

    def __init__(self, platform: Platform, images: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
        self._platform = platform
        self._expected = expected
        self._requests = [_request(image) for image in images]
        self._window = Window()

    async def run(self, clients: int) -> None:
        """Ask until cancelled."""
        async with grpc.aio.insecure_channel(self._platform.address("inference")) as channel:
            await asyncio.gather(*(self._ask(channel, client % len(self._requests)) for client in range(clients)))

    async def _ask(self, channel: grpc.aio.Channel, image: int) -> None:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            start = time.perf_counter()
            try:
                answer = await stub.ModelInfer(self._requests[image], timeout=30)
            except grpc.aio.AioRpcError as error:
                self._window.failures.append(f"{error.code().name}: {error.details()}")
                continue
            self._window.latencies_ms.append(1000 * (time.perf_counter() - start))
            found = np.frombuffer(answer.raw_output_contents[0], np.float32)
            right = self._expected[int(answer.model_version) - 1, image]
            self._window.wrong += not np.allclose(found, right, atol=TOLERANCE)

    async def during(self, change: Callable[[], None], least_s: float) -> Window:
        """What is noticed from the beginning of a change to its end, and for so long at least."""
        self._window, start = Window(), time.perf_counter()
        await asyncio.to_thread(change)
        await asyncio.sleep(max(0.0, least_s - (time.perf_counter() - start)))
        window, self._window = self._window, Window()
        window.seconds = time.perf_counter() - start
        return window


def _request(image: npt.NDArray[np.float32]) -> open_inference_pb2.ModelInferRequest:
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(
        name="images", datatype="FP32", shape=(1, *image.shape)
    )
    return open_inference_pb2.ModelInferRequest(
        model_name="bench", inputs=[tensor], raw_input_contents=[image.tobytes()]
    )


class Changes:
    """A deployment that follows an alias, and what is done to it."""

    def __init__(self, platform: Platform, models: list[bytes]) -> None:
        card = OnnxModel(models[0]).card
        tiny = TinyModel(labels=card.labels.names, size=card.preprocess.height)
        self._platform = platform
        self._registry = RegistryWriter(platform.address("registry"))
        self._model = self._registry.create_model("bench")
        self._versions = [
            self._registry.add_version(self._model, tiny, data=model, outputs=card.outputs) for model in models
        ]
        self._registry.point(self._model, "production", self._versions[0])
        self._channel = grpc.insecure_channel(platform.address("inference"))
        self._stub = deployment_service_pb2_grpc.DeploymentServiceStub(self._channel)
        deployment = deployment_pb2.Deployment(model_version=f"{self._model}/versions/production")
        self._stub.CreateDeployment(
            deployment_service_pb2.CreateDeploymentRequest(parent=PROJECT, deployment_id="bench", deployment=deployment)
        )
        self._wait(lambda now: now.state == deployment_pb2.Deployment.STATE_READY)

    def flip(self) -> None:
        """Move the alias; ends when the new version serves and nothing runs of the old one."""
        self._registry.point(self._model, "production", self._versions[1])
        self._wait(lambda now: now.serving_version == self._versions[1])
        self._wait_for_replicas(1)

    def split(self) -> None:
        """Send half of the requests to the other version, and all of them back again."""
        share = deployment_pb2.TrafficTarget(model_version=self._versions[0], percent=50)
        self._update(deployment_pb2.Deployment(name=NAME, traffic=[share]), "traffic")
        self._wait(lambda now: now.traffic[0].serving_version == self._versions[0])
        self._update(deployment_pb2.Deployment(name=NAME), "traffic")
        self._wait_for_replicas(1)

    def scale(self) -> None:
        """From one replica to two."""
        self._update(deployment_pb2.Deployment(name=NAME, replicas=2), "replicas")
        self._wait_for_replicas(2)

    def _update(self, deployment: deployment_pb2.Deployment, path: str) -> None:
        self._stub.UpdateDeployment(
            deployment_service_pb2.UpdateDeploymentRequest(deployment=deployment, update_mask=FieldMask(paths=[path]))
        )

    def _wait(self, until: Callable[[deployment_pb2.Deployment], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not until(found := self._stub.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=NAME))):
            assert time.monotonic() < end, found
            time.sleep(0.1)

    def _wait_for_replicas(self, count: int) -> None:
        """By their processes: those that start are there before they answer."""
        end = time.monotonic() + WAIT_S
        while (found := self._replicas()) != count:
            assert time.monotonic() < end, f"{found} replicas, not {count}"
            time.sleep(0.2)

    def _replicas(self) -> int:
        family = processes.family(self._platform.state.instance)
        return sum("ServeReplica" in " ".join(one.cmdline()) for one in family if one.is_running())


async def measure(platform: Platform, models: list[bytes], clients: int, seconds: float) -> None:
    """Print a line for each change, the quiet time before it included."""
    images = np.random.default_rng(0).random((4, 3, 224, 224), np.float32)
    plain = [OnnxModel(model, threads=THREADS) for model in models]
    expected = np.stack([[one.run(image[None])["probabilities"][0] for image in images] for one in plain])
    changes = Changes(platform, models)
    load = Load(platform, images, expected)
    running = asyncio.ensure_future(load.run(clients))
    await load.during(lambda: None, seconds)
    print("| change | s | requests | failed | wrong | p50 ms | p99 ms | p99 ms before | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, change in (("alias", changes.flip), ("traffic", changes.split), ("replicas", changes.scale)):
        before = await load.during(lambda: None, seconds)
        during = await load.during(change, seconds)
        ratio = during.p99_ms / before.p99_ms
        cells = (
            name,
            f"{during.seconds:.0f}",
            len(during.latencies_ms),
            len(before.failures) + len(during.failures),
            before.wrong + during.wrong,
            f"{statistics.median(during.latencies_ms):.0f}",
            f"{during.p99_ms:.0f}",
            f"{before.p99_ms:.0f}",
            f"{ratio:.1f}",
        )
        print(f"| {' | '.join(map(str, cells))} |", *before.failures[:3], *during.failures[:3], flush=True)
    running.cancel()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=15.0, help="of quiet before each change, and of each at least")
    parser.add_argument("--base-model", default="efficientnet_b0")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = variants(export_model(Path(folder), arguments.base_model), 2)
    with running_platform() as platform:
        asyncio.run(measure(platform, models, arguments.clients, arguments.seconds))


if __name__ == "__main__":
    main()
