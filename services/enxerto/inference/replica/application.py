"""The Serve application: one class between Serve's gRPC port and the predictor."""

import hmac
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from pydantic import BaseModel, ConfigDict
from ray import serve

from enxerto.inference.adapters.model_files import fetch_model
from enxerto.inference.adapters.replica_client import SECRET_KEY
from enxerto.inference.adapters.replica_memory import RegionError, RegionReader
from enxerto.inference.adapters.serve_cluster import ERROR_MARK
from enxerto.inference.domain import ITEM_BYTES, BatchAnswer
from enxerto.inference.replica.messages import answer_form, response, tensor_arguments
from enxerto.inference.replica.predictor import Predictor, ShapeError
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import VersionName
from enxerto.runtime.allocator import keep_freed_memory
from enxerto.vision.images import ImageLimits

logger = logging.getLogger(__name__)

# The front limits how much is in flight; this only keeps Serve's default of 5 from being the limit.
_MAX_ONGOING = 64
_START_ATTEMPTS = 3
_HEALTH_PERIOD_S = 2.0
_DRAIN_S = 20.0
_CUDA = "CUDAExecutionProvider"


class ReplicaArguments(BaseModel):
    """What the application is declared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_version: str
    registry_address: str
    registry_certificates: str
    secret_file: Path
    cache_folder: Path
    threads: int
    cpus: float
    max_image_pixels: int
    max_image_bytes: int
    device: str = "CPU"
    gpus: float = 0.0


class ReplicaStartError(RuntimeError):
    """A replica cannot serve its version; the front finds the text by its first words."""


class Replica:
    """enxerto.inference.v1.ReplicaService, as Serve calls it."""

    def __init__(self, arguments: ReplicaArguments) -> None:
        self._version = arguments.model_version
        keep_freed_memory()
        try:
            self._secret = arguments.secret_file.read_text().strip().encode()
            certificates = Path(arguments.registry_certificates) if arguments.registry_certificates else None
            name = VersionName.parse(arguments.model_version)
            model = fetch_model(name, arguments.registry_address, certificates, arguments.cache_folder)
            limits = ImageLimits(arguments.max_image_bytes, arguments.max_image_pixels)
            self._predictor = Predictor(model, arguments.threads, limits)
            _check_device(arguments.device, self._predictor.providers)
            self._regions = RegionReader()
        except (EnxertoError, OSError) as error:
            raise ReplicaStartError(f"{ERROR_MARK}{error}") from error

    async def Predict(self, request: pb.PredictRequest, grpc_context: Any) -> pb.PredictResponse:  # noqa: N802
        """Run one batch."""
        given = dict(grpc_context.invocation_metadata()).get(SECRET_KEY, "")
        # What Serve passes on is text or bytes; comparing bytes takes the same time for every wrong secret.
        if not hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._secret):
            return _refuse(grpc_context, grpc.StatusCode.UNAUTHENTICATED, "this port is for the inference service only")
        if request.model_version != self._version:
            return _refuse(grpc_context, grpc.StatusCode.FAILED_PRECONDITION, f"this replica serves {self._version}")
        try:
            return response(await self._answer(request))
        except RegionError:
            return pb.PredictResponse(memory_apart=True)
        except ShapeError as error:
            return _refuse(grpc_context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception:
            # Serve would send the stack to the caller.
            logger.exception("a batch failed")
            return _refuse(grpc_context, grpc.StatusCode.INTERNAL, "the batch failed; the replica's log says why")

    async def _answer(self, request: pb.PredictRequest) -> BatchAnswer:
        if request.WhichOneof("batch") == "encoded":
            return await self._predictor.encoded(
                request.encoded.contents, answer_form(request.encoded), request.outputs
            )
        if request.WhichOneof("batch") == "shared":
            shape, datatype = tuple(request.shared.shape), request.shared.datatype
            size = math.prod(shape) * ITEM_BYTES.get(datatype, 0)
            content = self._regions.read(request.shared.pid, request.shared.fd, request.shared.nonce, size)
            return await self._predictor.tensor([content], shape, datatype, request.outputs)
        return await self._predictor.tensor(*tensor_arguments(request.tensor), names=request.outputs)


def _check_device(device: str, providers: Sequence[str]) -> None:
    """ONNX Runtime falls back to the CPU without a word of it; a replica that was to have a GPU must not."""
    if device == "GPU" and _CUDA not in providers:
        raise ReplicaStartError(f"{ERROR_MARK}the deployment wants a GPU, ONNX Runtime has only {', '.join(providers)}")


def _refuse(context: Any, code: grpc.StatusCode, text: str) -> pb.PredictResponse:
    context.set_code(code)
    context.set_details(text)
    return pb.PredictResponse()


def build(arguments: dict[str, Any]) -> serve.Application:
    """Make the application from its declaration; Serve calls this."""
    parsed = ReplicaArguments.model_validate(arguments)
    deployment = serve.deployment(
        name="replica",
        ray_actor_options={"num_cpus": parsed.cpus, "num_gpus": parsed.gpus},
        max_ongoing_requests=_MAX_ONGOING,
        max_constructor_retry_count=_START_ATTEMPTS,
        health_check_period_s=_HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=_DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        # Each batch is counted and timed by the front.
        logging_config={"enable_access_log": False},
    )(Replica)
    application: serve.Application = deployment.bind(parsed)
    return application
