"""What one client waits for beside the graph: `python tests/benchmarks/serving/one_client.py`.

Plain ONNX Runtime and the served ways to ask take turns in blocks of a few requests, so that a machine that becomes
slower does so for all of them; medians of the differences between blocks side by side are printed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc

from benchmark_models import export_model
from benchmark_sides import Plain, deploy, infer_request, photo, shared
from enxerto.inference.oip import open_inference_pb2_grpc
from enxerto.inference.v1 import vision_pb2, vision_service_pb2, vision_service_pb2_grpc
from enxerto.vision.images import load, to_batch
from platforms import Platform, running_platform

BLOCK = 25


def block_ms(ask: Callable[[], object]) -> list[float]:
    """What each request of a block took, after one that warms the caches up."""
    ask()
    found = []
    for _ in range(BLOCK):
        start = time.perf_counter()
        ask()
        found.append(1000 * (time.perf_counter() - start))
    return found


def compare(platform: Platform, model: bytes, blocks: int) -> dict[str, list[list[float]]]:
    """The blocks of each way to ask."""
    name, jpeg = deploy(platform, model, "cpu"), photo()
    plain = Plain(model, "cpu")
    tensor = to_batch([load(jpeg, plain.spec)])
    with shared(platform, tensor) as region, grpc.insecure_channel(platform.address("inference")) as channel:
        inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        vision = vision_service_pb2_grpc.VisionServiceStub(channel)
        infer, pointing = infer_request(tensor), infer_request(tensor, region)
        classify = vision_service_pb2.ClassifyRequest(deployment=name, images=[vision_pb2.Image(content=jpeg)])
        kinds: dict[str, Callable[[], object]] = {
            "plain tensor": lambda: plain.tensors(tensor, 1),
            "tensor": lambda: inference.ModelInfer(infer),
            "tensor in shared memory": lambda: inference.ModelInfer(pointing),
            "plain JPEG": lambda: plain.jpegs(jpeg, 1),
            "JPEG": lambda: vision.Classify(classify),
        }
        # The first block warms up and is thrown away.
        rounds = [{kind: block_ms(ask) for kind, ask in kinds.items()} for _ in range(blocks + 1)][1:]
    return {kind: [one[kind] for one in rounds] for kind in kinds}


def report(found: dict[str, list[list[float]]]) -> None:
    """Print what served requests take, and how much more than the plain ones beside them."""
    print("| request | p10 ms | p50 ms | more than plain, ms | quartiles |")
    print("|---|---|---|---|---|")
    for kind, blocks in found.items():
        every = statistics.quantiles([each for block in blocks for each in block], n=10)
        plain = found["plain JPEG" if "JPEG" in kind else "plain tensor"]
        more = [statistics.median(ours) - statistics.median(theirs) for ours, theirs in zip(blocks, plain, strict=True)]
        low, middle, high = statistics.quantiles(more, n=4)
        cells = (f"{middle:.2f}", f"{low:.2f}, {high:.2f}") if blocks is not plain else ("", "")
        print(f"| {kind} | {every[0]:.2f} | {every[4]:.2f} | {cells[0]} | {cells[1]} |")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--base-model", default="efficientnet_b0")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = export_model(Path(folder), arguments.base_model)
    with running_platform() as platform:
        platform.restart_with("inference", {"ENXERTO_INFERENCE_SHARED_MEMORY": "true"})
        report(compare(platform, model, arguments.blocks))


if __name__ == "__main__":
    main()
