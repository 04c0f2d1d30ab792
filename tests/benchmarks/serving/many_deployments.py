"""Whether other deployments slow a request down: `python tests/benchmarks/serving/many_deployments.py`.

The same deployment is asked while it is alone, one of ten, one of a hundred, and back. All are shared ones of tiny
models, so that a request costs little beside what many deployments could add to it. With `--alias` each follows one.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc
import numpy as np
import psutil

from enxerto.inference.oip import open_inference_pb2, open_inference_pb2_grpc
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from fakes.tiny_onnx import PROJECT, SIZE, RegistryWriter, TinyModel
from platforms import Platform, running_platform

COUNTS = (1, 10, 100, 10, 1)
ALIAS = "production"
WAIT_S = 300.0
IDLE_S = 10.0


class Crowd:
    """As many deployments as wanted."""

    def __init__(self, platform: Platform, *, alias: bool) -> None:
        self._alias = alias
        self._registry = RegistryWriter(platform.address("registry"))
        channel = grpc.insecure_channel(platform.address("inference"))
        self._stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        self._names: list[str] = []

    def resize(self, count: int) -> None:
        """Create or delete, and wait until all that are left answer."""
        while len(self._names) > count:
            self._stub.DeleteDeployment(deployment_service_pb2.DeleteDeploymentRequest(name=self._names.pop()))
        while len(self._names) < count:
            identity = f"crowd-{len(self._names)}"
            model = self._registry.create_model(identity)
            version = self._registry.add_version(model, TinyModel(len(self._names)))
            if self._alias:
                self._registry.point(model, ALIAS, version)
                version = f"{model}/versions/{ALIAS}"
            deployment = deployment_pb2.Deployment(
                model_version=version, placement=deployment_pb2.Deployment.PLACEMENT_SHARED
            )
            request = deployment_service_pb2.CreateDeploymentRequest(
                parent=PROJECT, deployment_id=identity, deployment=deployment
            )
            self._names.append(self._stub.CreateDeployment(request).name)
        self._wait(lambda found: sorted(found) == sorted(self._names) and all(found.values()))

    def _wait(self, until: Callable[[dict[str, bool]], bool]) -> None:
        end, request = time.monotonic() + WAIT_S, deployment_service_pb2.ListDeploymentsRequest(parent=PROJECT)
        request.page_size = 1000
        ready = deployment_pb2.Deployment.STATE_READY
        while not until({one.name: one.state == ready for one in self._stub.ListDeployments(request).deployments}):
            assert time.monotonic() < end, "not all deployments answer"
            time.sleep(0.5)


async def latencies_ms(platform: Platform, clients: int, seconds: float) -> list[float]:
    """Of the first deployment's requests."""
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(name="images", datatype="FP32", shape=image.shape)
    request = open_inference_pb2.ModelInferRequest(
        model_name="crowd-0", inputs=[tensor], raw_input_contents=[image.tobytes()]
    )
    found: list[float] = []
    async with grpc.aio.insecure_channel(platform.address("inference")) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def client(end: float) -> None:
            while (start := time.perf_counter()) < end:
                await stub.ModelInfer(request, timeout=30)
                found.append(1000 * (time.perf_counter() - start))

        await asyncio.gather(*(client(time.perf_counter() + seconds) for _ in range(clients)))
    return found


def front_s(platform: Platform) -> float:
    """CPU seconds of the front so far."""
    times = psutil.Process(platform.state.processes["inference"].pid).cpu_times()
    return times.user + times.system


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alias", action="store_true", help="deploy by alias instead of by number")
    arguments = parser.parse_args()
    with running_platform() as platform:
        crowd = Crowd(platform, alias=arguments.alias)
        print("| deployments | requests/s | p50 ms | p99 ms | front, CPU ms/request | idle front, CPU ms/s |")
        print("|---|---|---|---|---|---|")
        for count in COUNTS:
            crowd.resize(count)
            asyncio.run(latencies_ms(platform, arguments.clients, arguments.seconds))
            before = front_s(platform)
            rounds = [
                asyncio.run(latencies_ms(platform, arguments.clients, arguments.seconds))
                for _ in range(arguments.rounds)
            ]
            cost = 1000 * (front_s(platform) - before) / sum(map(len, rounds))
            before = front_s(platform)
            time.sleep(IDLE_S)
            idle = 1000 * (front_s(platform) - before) / IDLE_S
            rate = statistics.median(len(one) / arguments.seconds for one in rounds)
            p50 = statistics.median(statistics.median(one) for one in rounds)
            p99 = statistics.median(statistics.quantiles(one, n=100)[98] for one in rounds)
            print(f"| {count} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {cost:.2f} | {idle:.0f} |", flush=True)


if __name__ == "__main__":
    main()
