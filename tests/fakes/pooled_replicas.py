"""Shared replicas of this process in the place of Ray; everything but Serve and the network is real."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from enxerto.inference.adapters.replica_client import (
    SECRET_KEY,
    answer_from_proto,
    arrange_request,
    check_loaded,
    occupancy_from_proto,
    predict_request,
)
from enxerto.inference.domain import BatchAnswer, Endpoint, Occupancy, Payload
from enxerto.inference.errors import ReplicasUnavailableError
from enxerto.inference.replica.predictor import Predictor
from enxerto.inference.replica.residents import ResidentLimits, Residents
from enxerto.inference.replica.shared import SharedAnswering, shared_predictors
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.names import VersionName
from enxerto.vision.images import ImageLimits

SECRET = "s" * 32


class CallContext:
    """What Serve gives a replica beside the request."""

    def __init__(self, secret: str = SECRET) -> None:
        self._secret = secret
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [(SECRET_KEY, self._secret)]

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


class PooledReplicas:
    """`Replicas`, one for every endpoint that is called, over the files of these versions."""

    def __init__(self, folder: Path, limits: ResidentLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._replicas: dict[Endpoint, SharedAnswering] = {}
        self.residents: dict[Endpoint, Residents[Predictor]] = {}

    def keep_files(self, models: Mapping[VersionName, bytes]) -> None:
        """What the registry would be asked for."""
        for version, data in models.items():
            self._path(version).write_bytes(data)

    def _path(self, version: VersionName) -> Path:
        return self._folder / f"{version.model}-{version.number}.onnx"

    def _replica(self, endpoint: Endpoint) -> SharedAnswering:
        if endpoint not in self._replicas:
            predictors = shared_predictors(self._path, 2, ImageLimits(10**6, 10**6), self._limits)
            self.residents[endpoint] = predictors
            self._replicas[endpoint] = SharedAnswering(SECRET, predictors)
        return self._replicas[endpoint]

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        request = pb.PredictRequest.FromString(predict_request(version, payloads).SerializeToString())
        answer: Any = await self._called(self._replica(endpoint).Predict, request)
        answer = pb.PredictResponse.FromString(answer.SerializeToString())
        check_loaded(request, answer)
        return answer_from_proto(answer)

    async def arrange(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy:
        answer: Any = await self._called(self._replica(endpoint).Arrange, arrange_request(versions, pinned))
        return occupancy_from_proto(answer)

    async def _called(self, method: Any, request: Any) -> Any:
        context = CallContext()
        answer = await method(request, context)
        if context.code is not None:
            raise ReplicasUnavailableError(f"{context.code.name}: {context.details}")
        return answer

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        """Nothing is open."""
