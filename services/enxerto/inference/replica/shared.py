"""The predictors of a shared replica; knows nothing of Ray or gRPC."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from enxerto.inference.replica.predictor import Predictor, Workers
from enxerto.inference.replica.residents import ResidentLimits, Residents, Source, resident_bytes
from enxerto.kernel.names import VersionName
from enxerto.vision.images import ImageLimits


def shared_predictors(
    fetch: Callable[[VersionName], Path], threads: int, images: ImageLimits, limits: ResidentLimits
) -> Residents[Predictor]:
    """Predictors that take turns in the same threads, within a budget.

    Their sessions keep no memory for activations: one of EfficientNet-Lite0 takes 13 MiB so, and 400 MiB when it keeps
    what a batch of 32 needed. What a model takes is then its weights, which are measured while no batch is in a graph.

    Args:
        fetch: the path of a version's ONNX file.
        threads: of ONNX Runtime, and as many for decoding and encoding.
        images: what an encoded image may cost.
        limits: of what is held.
    """
    workers = Workers(ThreadPoolExecutor(threads, "pixels"), ThreadPoolExecutor(1, "compute"))
    paths: dict[VersionName, Path] = {}

    def find(version: VersionName) -> Source[Predictor]:
        # Versions never change: what was fetched once needs no registry to come back.
        path = paths.get(version)
        if path is None or not path.exists():
            path = paths[version] = fetch(version)
        return Source(path.stat().st_size, lambda: Predictor(path, threads, images, workers=workers))

    async def measure() -> int:
        return await asyncio.get_running_loop().run_in_executor(workers.compute, resident_bytes)

    return Residents(find, limits, measure)
