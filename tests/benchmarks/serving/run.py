"""Serving against a plain ONNX Runtime loop, in one run: `python tests/benchmarks/serving/run.py`.

Both sides take turns in short rounds, so that a noisy machine is noisy for both; medians over the rounds are printed as
wall time and as CPU time per image over all processes: load generator, services and Ray together.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc
import psutil

from benchmark_models import THREADS, export_model
from benchmark_sides import Plain, deploy, infer_request, photo, shared
from enxerto.inference.oip import open_inference_pb2_grpc
from enxerto.inference.v1 import vision_pb2, vision_service_pb2, vision_service_pb2_grpc
from enxerto.local import processes
from enxerto.vision.images import load, to_batch
from platforms import Platform, running_platform


@dataclass
class Samples:
    """Measurements of one side of one scenario."""

    images_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def row(self) -> dict[str, float]:
        """Medians over the rounds, and percentiles over all requests."""
        quantiles = statistics.quantiles(self.latencies_ms, n=100)
        return {
            "images/s": round(statistics.median(self.images_per_s), 1),
            "CPU ms/image": round(statistics.median(self.cpu_ms), 2),
            "p50 ms": round(quantiles[49], 2),
            "p99 ms": round(quantiles[98], 2),
        }


class CpuClock:
    """CPU seconds of this process and of all that belong to the platform."""

    def __init__(self, instance: str) -> None:
        self._processes = [psutil.Process(), *processes.family(instance)]

    def now(self) -> float:
        total = 0.0
        for process in self._processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


@contextmanager
def measured(samples: Samples, clock: CpuClock, images: Callable[[], int]) -> Iterator[None]:
    cpu, wall = clock.now(), time.perf_counter()
    yield
    wall, cpu = time.perf_counter() - wall, clock.now() - cpu
    samples.images_per_s.append(images() / wall)
    samples.cpu_ms.append(1000 * cpu / images())


def plain_round(work: Callable[[int], None], batch: int, seconds: float, samples: Samples, clock: CpuClock) -> None:
    done = 0
    with measured(samples, clock, lambda: done):
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            work(batch)
            samples.latencies_ms.append(1000 * (time.perf_counter() - start))
            done += batch


async def served_round(
    ask: Callable[[], Awaitable[object]], clients: int, seconds: float, samples: Samples, clock: CpuClock
) -> None:
    done = 0

    async def client(end: float) -> None:
        nonlocal done
        while (start := time.perf_counter()) < end:
            await ask()
            samples.latencies_ms.append(1000 * (time.perf_counter() - start))
            done += 1

    with measured(samples, clock, lambda: done):
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(end) for _ in range(clients)))


async def compare(
    platform: Platform, model: bytes, *, device: str, loads: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[str, Samples]]:
    """Take turns: each scenario of each round on the plain loop, then served."""
    name, jpeg = deploy(platform, model, device), photo()
    plain = Plain(model, "cuda" if device == "gpu" else "cpu")
    tensor = to_batch([load(jpeg, plain.spec)])
    batch = plain.best_batch(tensor)
    clock = CpuClock(platform.state.instance)
    start, cpu = time.perf_counter(), clock.now()
    await asyncio.sleep(3)
    idle = (clock.now() - cpu) / (time.perf_counter() - start)
    print(f"plain ONNX Runtime: {THREADS} threads, best batch {batch}; idle platform: {1000 * idle:.0f} CPU ms/s")
    # The load comes from one process with one connection.
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(platform.address("inference")))
        region = stack.enter_context(shared(platform, tensor))
        vision = vision_service_pb2_grpc.VisionServiceStub(channel)
        inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        classify = vision_service_pb2.ClassifyRequest(deployment=name, images=[vision_pb2.Image(content=jpeg)])
        infer, pointing = infer_request(tensor), infer_request(tensor, region)
        kinds: dict[str, tuple[Callable[[int], None], Callable[[], Awaitable[object]]]] = {
            "tensor": (lambda size: plain.tensors(tensor, size), lambda: inference.ModelInfer(infer)),
            "tensor in shared memory": (
                lambda size: plain.tensors(tensor, size),
                lambda: inference.ModelInfer(pointing),
            ),
            "jpeg": (lambda size: plain.jpegs(jpeg, size), lambda: vision.Classify(classify)),
        }
        results: dict[str, dict[str, Samples]] = {}
        for turn in range(rounds + 1):
            for kind, (work, ask) in kinds.items():
                for clients in loads:
                    # The first round warms both sides up and is thrown away.
                    key = f"{kind}, {clients} client{'s' if clients > 1 else ''}"
                    sides = results.setdefault(key, {}) if turn else {}
                    size = 1 if clients == 1 else batch
                    plain_round(work, size, seconds, sides.setdefault("plain", Samples()), clock)
                    await served_round(ask, clients, seconds, sides.setdefault("served", Samples()), clock)
    return results


def report(results: dict[str, dict[str, Samples]]) -> None:
    """Print a table with the ratios."""
    print("| load | side | images/s | CPU ms/image | p50 ms | p99 ms | throughput ratio | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for scenario, sides in results.items():
        plain, served = sides["plain"].row, sides["served"].row
        for side, row in (("plain", plain), ("served", served)):
            ratios = ("", "")
            if side == "served":
                throughput = served["images/s"] / plain["images/s"]
                ratios = (f"{throughput:.2f}", f"{served['CPU ms/image'] / plain['CPU ms/image']:.2f}")
            cells = [scenario, side, *map(str, row.values()), *ratios]
            print(f"| {' | '.join(cells)} |")
    print(json.dumps({name: {side: each.row for side, each in sides.items()} for name, sides in results.items()}))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16], help="of each load, in a closed loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="of each side of each scenario in a round; many times a request, for a round ends with its last",
    )
    parser.add_argument("--base-model", default="efficientnet_lite0")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = export_model(Path(folder), arguments.base_model)
    with running_platform() as platform:
        platform.restart_with("inference", {"ENXERTO_INFERENCE_SHARED_MEMORY": "true"})
        results = compare(
            platform,
            model,
            device=arguments.device,
            loads=arguments.clients,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
        )
        report(asyncio.run(results))


if __name__ == "__main__":
    main()
