"""The Open Inference Protocol: convert, call, convert. A model is a deployment."""

from collections.abc import Callable
from typing import Any

import grpc

from enxerto import __version__
from enxerto.inference.converters import sticky_key
from enxerto.inference.oip import answers, converters
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from enxerto.inference.service import Predictions

Context = grpc.aio.ServicerContext[Any, Any]


class OpenInferenceServicer(GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService."""

    def __init__(self, predictions: Predictions, ready: Callable[[], bool]) -> None:
        self._predictions = predictions
        self._ready = ready

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answering is living."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Whether the deployments were looked up."""
        return pb.ServerReadyResponse(ready=self._ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Whether a model answers; false for one that is not there, as Triton's clients expect."""
        key = converters.model_key(request.name, request.version, "name", "version")
        return pb.ModelReadyResponse(ready=self._predictions.ready(key.name, key.number))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Name and version."""
        return pb.ServerMetadataResponse(name=converters.SERVER_NAME, version=__version__)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        key = converters.model_key(request.name, request.version, "name", "version")
        return converters.metadata_to_proto(request.name, self._predictions.serving(key.name, key.number))

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Run a model."""
        key = converters.model_key(request.model_name, request.model_version, "model_name", "model_version")
        version = self._predictions.serving(key.name, key.number)
        payload = converters.payload(request, version, self._predictions.max_items)
        prediction = await self._predictions.answer(
            key.name,
            payload,
            "images[{}]",
            context.time_remaining(),
            number=key.number,
            sticky_key=sticky_key(context.invocation_metadata()),
        )
        return answers.prediction_to_proto(request, prediction)
