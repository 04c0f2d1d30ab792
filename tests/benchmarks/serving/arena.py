"""What the memory that a session keeps costs and saves: `python tests/benchmarks/serving/arena.py`.

A large batch goes through a graph as a dedicated replica with two threads cuts it, and small ones after it:
EfficientNet-Lite0 with 32 images in parts of four and single ones, the fast style network with a picture of 512x512 and
some of 128x128. Each side has a process of its own, and they take turns.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnxruntime as ort
import psutil

from benchmark_models import THREADS, export_model
from enxerto.runtime.allocator import keep_freed_memory

Shape = tuple[int, int, int, int]

SIDES = ("arena", "arena, exact", "arena, shrunk", "no arena")
SHAPES: dict[str, tuple[list[Shape], Shape]] = {
    "lite": ([(2 * THREADS, 3, 224, 224)] * 8, (1, 3, 224, 224)),
    "style": ([(1, 3, 512, 512)], (1, 3, 128, 128)),
}
"""Calls of a large batch, and of a small one."""
SMALL_ONES = 4
MIB = 2**20


def export_style(path: Path) -> None:
    """The fast style network with random weights."""
    from enxerto.vision.catalogue import get_facts
    from enxerto.vision.specs import Task
    from enxerto.vision.torch.export import export
    from enxerto.vision.torch.style.transformer import TransformerNetwork

    spec = get_facts("fast_style").preprocess
    network = TransformerNetwork().eval()
    export(network, path, task=Task.STYLE, class_names=("content", "style"), preprocess=spec, provenance={})


def session(model: Path, side: str) -> ort.InferenceSession:
    """As `enxerto.vision.onnx.session` makes them, apart from the arena."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = side != "no arena"
    if side == "arena, exact":
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        # Strategy 1 is kSameAsRequested.
        limits = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({**limits, "arena_extend_strategy": 1}))
        options.add_session_config_entry("session.use_env_allocators", "1")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def measure(model: Path, side: str, batches: int) -> dict[str, float]:
    """Medians of one process: ms a batch, and MiB that it takes in the end."""
    keep_freed_memory()
    graph, process = session(model, side), psutil.Process()
    large, small = SHAPES[model.stem]
    shrinking = ort.RunOptions()
    shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(name: str, shapes: list[Shape], last: ort.RunOptions | None = None) -> None:
        inputs = [np.full(shape, 0.5, np.float32) for shape in shapes]
        wall, cpu = time.perf_counter(), time.process_time()
        for index, images in enumerate(inputs, 1):
            graph.run(None, {"images": images}, last if index == len(inputs) else None)
        timings[f"{name}: wall ms"].append(1e3 * (time.perf_counter() - wall))
        timings[f"{name}: CPU ms"].append(1e3 * (time.process_time() - cpu))
        found[f"{name}: MiB after"] = process.memory_info().rss / MIB

    timings: dict[str, list[float]] = defaultdict(list)
    found: dict[str, float] = {}
    run("first", [small])
    for _ in range(batches):
        run("large", large, shrinking if side == "arena, shrunk" else None)
        for _ in range(SMALL_ONES):
            run("small", [small])
    return {**{name: statistics.median(values) for name, values in timings.items()}, **found}


def main() -> None:
    """Print medians of all rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--graphs", nargs="+", choices=SHAPES, default=list(SHAPES))
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in (Path(folder) / f"{name}.onnx" for name in wanted.graphs):
            if model.stem == "style":
                export_style(model)
            else:
                model.write_bytes(export_model(Path(folder), "efficientnet_lite0"))
            rounds = defaultdict(list)
            for number in range(wanted.rounds):
                for side in SIDES:
                    # A fresh process each time: what another side has kept would be counted.
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        rounds[side].append(pool.apply(measure, (model, side, wanted.batches)))
                print(f"{model.stem}, {number + 1} rounds", flush=True)
                names = list(rounds[SIDES[0]][0])
                print("| side |", " | ".join(names), "|")
                print("|---" * (len(names) + 1) + "|")
                for side, found in rounds.items():
                    medians = (statistics.median(one[name] for one in found) for name in names)
                    print(f"| {side} |", " | ".join(f"{value:.1f}" for value in medians), "|", flush=True)


if __name__ == "__main__":
    main()
