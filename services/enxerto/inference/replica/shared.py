"""A shared replica; knows nothing of Ray."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from enxerto.inference.adapters.model_cache import use
from enxerto.inference.replica.answering import Answering
from enxerto.inference.replica.messages import arrange_arguments, occupancy
from enxerto.inference.replica.predictor import Predictor, Workers
from enxerto.inference.replica.residents import ResidentLimits, Residents, Source, resident_bytes
from enxerto.inference.replica.turns import OneThread, SideBySide
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.names import VersionName
from enxerto.vision.images import ImageLimits

T = TypeVar("T")

_COMPUTING = 64
"""Calls over gRPC whose models are there. Those that wait for theirs must not keep them out."""


class SharedAnswering(Answering):
    """enxerto.inference.v1.ReplicaService for any version that there is room for. Made in the residents' event loop."""

    def __init__(self, secret: str, residents: Residents[Predictor]) -> None:
        super().__init__(secret, residents.max_waiting + _COMPUTING)
        self._residents = residents
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def using(self, version: str) -> Iterator[Predictor]:
        """The predictor of a version, loaded when it has to be; see `Answering.using`."""
        lease = self._residents.using(VersionName.parse(version))
        predictor = self._in_loop(lease.__aenter__())
        try:
            yield predictor
        finally:
            self._in_loop(lease.__aexit__(None, None, None))

    def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def Arrange(self, request: pb.ArrangeRequest, grpc_context: Any) -> pb.ArrangeResponse:  # noqa: N802
        """Take over which models to hold, and say what is held."""
        if not self.admits(grpc_context):
            return pb.ArrangeResponse()
        await self._residents.arrange(*arrange_arguments(request))
        return occupancy(self._residents.occupancy)


def shared_predictors(
    fetch: Callable[[VersionName], Path], threads: int, images: ImageLimits, limits: ResidentLimits
) -> Residents[Predictor]:
    """Predictors that take turns in the same threads, within a budget.

    Their sessions keep no memory for activations: one of EfficientNet-Lite0 takes 13 MiB so, and 51 MiB more when it
    keeps what a batch of 32 needed. What a model takes is then its weights, which are measured while no batch is in a
    graph.

    Args:
        fetch: the path of a version's ONNX file.
        threads: of ONNX Runtime, and as many for decoding and encoding.
        images: what an encoded image may cost.
        limits: of what is held.
    """
    workers = Workers(SideBySide(threads), OneThread())
    paths: dict[VersionName, Path] = {}
    beginning, begun = threading.Lock(), threading.Event()

    def find(version: VersionName) -> Source[Predictor]:
        # Versions never change: what was fetched once needs no registry to come back.
        path = paths.get(version)
        if path is None or not use(path):
            path = paths[version] = fetch(version)
        with beginning:
            if not begun.is_set():
                # What the runtime sets up once in a process, 10 MiB, is not to be measured as the first model's.
                Predictor(path, threads, images, workers=workers)
                begun.set()
        return Source(path.stat().st_size, lambda: Predictor(path, threads, images, workers=workers))

    async def measure() -> int:
        return await asyncio.to_thread(workers.compute.run, resident_bytes)

    return Residents(find, limits, measure)
