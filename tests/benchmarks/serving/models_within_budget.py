"""Ten models behind a shared replica's budget for four: `python tests/benchmarks/serving/models_within_budget.py`.

Concurrent clients ask for models of unequal popularity; every answer is held against plain ONNX Runtime's. What the
replica's process takes is sampled all the while and printed for each tenth of the requests: it must not grow.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc
import numpy as np
import psutil

from benchmark_models import THREADS, TOLERANCE, export_model, variants
from enxerto.inference.oip import open_inference_pb2, open_inference_pb2_grpc
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from enxerto.local import processes
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import PROJECT, RegistryWriter, TinyModel
from platforms import Platform, running_platform

MODELS = 10
FIT = 4
IMAGES = 4
MIB = 2**20


def expected_answers(models: list[bytes], images: np.ndarray) -> np.ndarray:
    """Plain ONNX Runtime's probabilities, (models, images, classes); far enough apart to tell models and images by."""
    plain = [OnnxModel(model, threads=THREADS) for model in models]
    answers = np.stack([[one.run(image[None])["probabilities"][0] for image in images] for one in plain])
    rows = answers.reshape(-1, answers.shape[-1])
    apart = np.abs(rows[:, None] - rows[None]).max(axis=2) + np.eye(len(rows))
    assert apart.min() > 10 * TOLERANCE, apart.min()
    return answers


def deploy(platform: Platform, models: list[bytes]) -> list[str]:
    """Register all and deploy them together, shared; their ids once they are ready."""
    card = OnnxModel(models[0]).card
    tiny = TinyModel(labels=card.labels.names, size=card.preprocess.height)
    registry = RegistryWriter(platform.address("registry"))
    ids = [f"bench-{index}" for index in range(len(models))]
    versions = [
        registry.add_version(registry.create_model(one), tiny, data=data, outputs=card.outputs)
        for one, data in zip(ids, models, strict=True)
    ]
    registry.close()
    with grpc.insecure_channel(platform.address("inference")) as channel:
        stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        for one, version in zip(ids, versions, strict=True):
            deployment = deployment_pb2.Deployment(
                model_version=version, placement=deployment_pb2.Deployment.PLACEMENT_SHARED
            )
            stub.CreateDeployment(
                deployment_service_pb2.CreateDeploymentRequest(parent=PROJECT, deployment_id=one, deployment=deployment)
            )
        for one in ids:
            while True:
                request = deployment_service_pb2.GetDeploymentRequest(name=f"{PROJECT}/deployments/{one}")
                found = stub.GetDeployment(request)
                if found.state == deployment_pb2.Deployment.STATE_READY:
                    break
                assert found.state == deployment_pb2.Deployment.STATE_DEPLOYING, found
                time.sleep(0.2)
    return ids


def replica(platform: Platform) -> psutil.Process:
    """The one shared replica."""
    (found,) = [one for one in processes.family(platform.state.instance) if "ServeReplica:pool" in one.name()]
    return found


def pool_metrics(platform: Platform) -> dict[str, float]:
    """What the front says of the pool."""
    with urllib.request.urlopen(platform.metrics_url("inference"), timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("enxerto_inference_pool_")]
    return {name.removeprefix("enxerto_inference_pool_"): float(value) for name, value in pairs}


@dataclass
class Tally:
    """What was seen so far."""

    rss: list[int] = field(default_factory=list)
    models: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    def row(self, label: str) -> str:
        """One line of the report."""
        size = [value / MIB for value in self.rss]
        quantiles = statistics.quantiles([1000 * value for value in self.latencies], n=100)
        cells = [
            label,
            *(f"{value:.0f}" for value in (min(size), statistics.median(size), max(size))),
            f"{max(self.models):.0f}",
            f"{quantiles[49]:.0f}",
            f"{quantiles[98]:.0f}",
            str(self.wrong),
            ", ".join(f"{count} {code}" for code, count in self.codes.items()) or "none",
        ]
        return f"| {' | '.join(cells)} |"


async def ask_all(
    platform: Platform, ids: list[str], images: np.ndarray, expected: np.ndarray, *, requests: int, clients: int
) -> list[Tally]:
    """Send the requests; a tally for each tenth of them."""
    choice, process = random.Random(0), replica(platform)
    weights = [1 / (rank + 1) for rank in range(len(ids))]
    orders = [(choice.choices(range(len(ids)), weights)[0], choice.randrange(IMAGES)) for _ in range(requests)]
    tallies = [Tally() for _ in range(10)]
    done = 0

    async def sample() -> None:
        while True:
            tally = tallies[min(9, done * 10 // requests)]
            tally.rss.append(process.memory_info().rss)
            tally.models.append((await asyncio.to_thread(pool_metrics, platform))["models"])
            await asyncio.sleep(0.5)

    async with grpc.aio.insecure_channel(platform.address("inference")) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def client() -> None:
            nonlocal done
            while orders:
                model, image = orders.pop()
                request = open_inference_pb2.ModelInferRequest(
                    model_name=ids[model],
                    inputs=[
                        open_inference_pb2.ModelInferRequest.InferInputTensor(
                            name="images", datatype="FP32", shape=[1, *images[image].shape]
                        )
                    ],
                    outputs=[open_inference_pb2.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")],
                    raw_input_contents=[images[image].tobytes()],
                )
                start = time.perf_counter()
                while True:
                    tally = tallies[min(9, done * 10 // requests)]
                    try:
                        answer = await stub.ModelInfer(request)
                        break
                    except grpc.aio.AioRpcError as error:
                        tally.codes[error.code().name] += 1
                        await asyncio.sleep(1.0)
                tally.latencies.append(time.perf_counter() - start)
                found = np.frombuffer(answer.raw_output_contents[0], "<f4")
                tally.wrong += not np.allclose(found, expected[model, image], atol=TOLERANCE)
                done += 1

        sampling = asyncio.ensure_future(sample())
        await asyncio.gather(*(client() for _ in range(clients)))
        sampling.cancel()
    return tallies


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--base-model", default="efficientnet_lite0")
    parser.add_argument("--side", type=int, default=96, help="of the input, pixels: small, for loads are what is tried")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = variants(export_model(Path(folder), arguments.base_model, arguments.side), MODELS)
    size = max(map(len, models))
    card = OnnxModel(models[0]).card.preprocess
    noise = np.random.default_rng(0).random((IMAGES, 3, card.height, card.width), np.float32)
    images = noise * np.linspace(0.25, 1, IMAGES, dtype=np.float32)[:, None, None, None]
    expected = expected_answers(models, images)
    # A session takes a little more than its file.
    budget = int((FIT + 0.5) * size)
    with running_platform() as platform:
        platform.restart_with("inference", {"ENXERTO_INFERENCE_POOL_MEMORY_BYTES": str(budget)})
        ids = deploy(platform, models)
        before, start = pool_metrics(platform), time.perf_counter()
        tallies = asyncio.run(
            ask_all(platform, ids, images, expected, requests=arguments.requests, clients=arguments.clients)
        )
        seconds, after = time.perf_counter() - start, pool_metrics(platform)
    print(f"{MODELS} models of {size / MIB:.1f} MiB, budget {budget / MIB:.1f} MiB, {arguments.clients} clients")
    print(
        "| requests | RSS least MiB | median | most | models | p50 ms | p99 ms | wrong answers | refused, asked again |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for tenth, tally in enumerate(tallies, 1):
        print(tally.row(f"to {tenth * arguments.requests // 10}"))
    for name in ("loads_total", "evictions_total"):
        print(f"{name}: {after[name] - before[name]:.0f}")
    print(f"held at the end: {after['models']:.0f} models, {after['held_bytes'] / MIB:.1f} MiB; {seconds:.0f} s")


if __name__ == "__main__":
    main()
