"""The Open Inference Protocol: convert, call, convert. A model is a deployment."""

import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import Any, NoReturn

import grpc

from enxerto import __version__
from enxerto.inference.converters import sticky_key
from enxerto.inference.errors import ModelManagedElsewhereError, SharedMemoryOffError
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.answers import prediction_to_proto
from enxerto.inference.oip.messages import InferRequest
from enxerto.inference.oip.metadata import (
    EXTENSIONS,
    SERVER_NAME,
    SHARED_MEMORY_EXTENSION,
    config_to_proto,
    metadata_to_proto,
)
from enxerto.inference.oip.names import model_key
from enxerto.inference.oip.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from enxerto.inference.oip.outputs import outputs_of
from enxerto.inference.oip.repository import check_repository, index_to_proto, until_ready
from enxerto.inference.oip.requests import call
from enxerto.inference.oip.shared_memory import Regions, is_local
from enxerto.inference.oip.statistics import statistics_to_proto
from enxerto.inference.service import CountedPredictions, Deployments, in_order
from enxerto.kernel.errors import (
    EnxertoError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnimplementedError,
    Violations,
)
from enxerto.kernel.names import DeploymentName, VersionName

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

_STREAM_WIDTH = 64
_LOAD_S = 60.0
_FINAL = "triton_final_response"


class OpenInferenceServicer(GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService; `add_to_server` has the requests of ModelInfer and ModelStreamInfer parsed."""

    def __init__(
        self,
        predictions: CountedPredictions,
        deployments: Deployments,
        regions: Regions | None,
        ready: Callable[[], bool],
    ) -> None:
        self._predictions = predictions
        self._deployments = deployments
        self._regions = regions
        self._ready = ready

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answering is living."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Whether the deployments were looked up."""
        return pb.ServerReadyResponse(ready=self._ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Whether a model answers; false for one that is not there or may not, as Triton's clients expect."""
        try:
            name, wanted = await self._which(request.name, request.version)
        except (NotFoundError, FailedPreconditionError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._predictions.ready(name, wanted))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Name, version and extensions."""
        extensions = EXTENSIONS if self._shared(context) is None else (*EXTENSIONS, SHARED_MEMORY_EXTENSION)
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=extensions)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        version = self._predictions.serving(*await self._which(request.name, request.version))
        return metadata_to_proto(request.name, version)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """How a model is served."""
        which = await self._which(request.name, request.version)
        version, gathering = self._predictions.serving(*which), self._predictions.gathering(*which)
        remembers, most = self._predictions.remembers(which[0]), self._predictions.always_fitting(version)
        config = config_to_proto(request.name, version, most, gathering, remembers=remembers)
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """What was served."""
        if not request.name:
            return statistics_to_proto(self._predictions.statistics())
        counted = self._predictions.statistics(*await self._which(request.name, request.version))
        return statistics_to_proto(counted, request.name)

    async def ModelInfer(  # type: ignore[override]
        self, request: InferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Run a model."""
        return await self._infer(request, context, context.time_remaining())

    async def ModelStreamInfer(  # type: ignore[override]
        self, request_iterator: AsyncIterable[InferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Run models over one stream."""
        answer = partial(self._infer_or_say_why, context=context)
        async with contextlib.aclosing(in_order(request_iterator, answer, _STREAM_WIDTH)) as responses:
            async for response in responses:
                yield response

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """List the deployments."""
        _check_repository(request.repository_name)
        return index_to_proto(await self._deployments.all(), self._predictions, request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Wait until a deployment answers."""
        _check_repository(request.repository_name)
        name, _ = await self._which(request.model_name, "", "model_name")
        if request.parameters:
            text = f"{name} is configured through DeploymentService.UpdateDeployment, not through parameters of a load"
            raise ModelManagedElsewhereError(name, text)
        left_s = context.time_remaining()
        await until_ready(name, self._deployments, self._predictions, _LOAD_S if left_s is None else left_s * 0.9)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """A deployment serves until it is deleted."""
        _check_repository(request.repository_name)
        name, _ = await self._which(request.model_name, "", "model_name")
        await self._deployments.get(name)
        raise ModelManagedElsewhereError(name, f"{name} serves until DeploymentService.DeleteDeployment removes it")

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """List regions."""
        status = pb.SystemSharedMemoryStatusResponse.RegionStatus
        found = self._regions_of(context).status(request.name)
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                name: status(name=name, key=region.key, offset=region.offset_bytes, byte_size=region.size_bytes)
                for name, region in found.items()
            }
        )

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region."""
        self._regions_of(context).register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Close a region, or all of them."""
        self._regions_of(context).unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        """There are no regions."""
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(self, request: pb.CudaSharedMemoryRegisterRequest, context: Context) -> NoReturn:
        """This process has no GPU."""
        raise UnimplementedError("CUDA shared memory is not served: use system shared memory, or send the contents")

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Clients clean up before they begin: that is no error."""
        return pb.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> NoReturn:
        """Never."""
        raise UnimplementedError("trace settings are not served: metrics and timings say where the time goes")

    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> NoReturn:
        """Never."""
        raise UnimplementedError("log settings are not served: the level is the setting ENXERTO_INFERENCE_LOG_LEVEL")

    async def _which(
        self, name: str, version: str, field: str = "name"
    ) -> tuple[DeploymentName, int | VersionName | None]:
        """The deployment, and the version that the caller insists on."""
        key = model_key(name, version, field, field.replace("name", "version"))
        return key.name, await self._deployments.version_of(key.name, key.alias) if key.alias else key.number

    async def _infer(
        self, request: InferRequest, context: Context, left_s: float | None = None
    ) -> pb.ModelInferResponse:
        """Run a model; `left_s` is what is left of the request's own deadline."""
        message = request.message
        name, wanted = await self._which(message.model_name, message.model_version, "model_name")
        version = self._predictions.serving(name, wanted)
        regions = self._shared(context)
        asked = call(request, version, self._predictions.max_items, regions)
        limits = [limit for limit in (left_s, asked.timeout_s) if limit is not None]
        prediction = await self._predictions.answer(
            name,
            asked.payload,
            "images[{}]",
            min(limits, default=None),
            wanted=wanted,
            sticky_key=sticky_key(context.invocation_metadata()),
        )
        outputs = asked.wanted
        if prediction.version is not version:
            # It has changed since the request was checked.
            outputs = outputs_of(message, prediction.version, regions)
        return prediction_to_proto(message, outputs, prediction, regions)

    async def _infer_or_say_why(self, request: InferRequest, context: Context) -> pb.ModelStreamInferResponse:
        """An answer, whatever happens: one request's failure is not the stream's, nor the stream's deadline its own."""
        try:
            response = await self._infer(request, context)
        except EnxertoError as error:
            return _failure(request.message, _in_full(error))
        except Exception:
            logger.exception("unforeseen error in a stream", extra={"model": request.message.model_name})
            return _failure(request.message, "internal error; the service's log says why")
        response.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    def _shared(self, context: Context) -> Regions | None:
        """The shared memory that a caller may use."""
        return self._regions if self._regions is not None and is_local(context.peer()) else None

    def _regions_of(self, context: Context) -> Regions:
        if self._regions is None:
            raise SharedMemoryOffError("shared memory is off: ENXERTO_INFERENCE_SHARED_MEMORY=true turns it on")
        if (regions := self._shared(context)) is None:
            raise SharedMemoryOffError("shared memory is for callers on the service's own machine, over loopback")
        return regions


def add_to_server(servicer: OpenInferenceServicer, server: grpc.aio.Server) -> None:
    """Serve it, with requests whose tensors are not copied: see `InferRequest`."""
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            servicer.ModelInfer, InferRequest.from_bytes, pb.ModelInferResponse.SerializeToString
        ),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
            servicer.ModelStreamInfer, InferRequest.from_bytes, pb.ModelStreamInferResponse.SerializeToString
        ),
    }
    # The first handler of a method is the one that counts.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)


def _check_repository(name: str) -> None:
    violations = Violations()
    check_repository(name, violations)
    violations.raise_if_any()


def _failure(request: pb.ModelInferRequest, text: str) -> pb.ModelStreamInferResponse:
    identity = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    identity.parameters[_FINAL].bool_param = True
    return pb.ModelStreamInferResponse(error_message=text, infer_response=identity)


def _in_full(error: EnxertoError) -> str:
    """A stream has no status details: every violation goes into the text."""
    if isinstance(error, InvalidArgumentError):
        return "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations)
    return error.message
