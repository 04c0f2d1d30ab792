"""What every replica does with a call of the front: asks for the secret, runs the batch, says what is wrong."""

import asyncio
import hmac
import logging
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc

from enxerto.inference.adapters.replica_client import SECRET_KEY
from enxerto.inference.adapters.replica_memory import RegionError, RegionReader
from enxerto.inference.adapters.replica_socket import CallRefusedError, SocketServer
from enxerto.inference.domain import ITEM_BYTES, BatchAnswer
from enxerto.inference.replica.messages import answer_form, not_loaded, response, tensor_arguments
from enxerto.inference.replica.predictor import Predictor, ShapeError
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.errors import EnxertoError, UnavailableError

logger = logging.getLogger(__name__)


class OtherVersionError(Exception):
    """The replica is not for this version."""


_CODES: Mapping[type[Exception], grpc.StatusCode] = {
    OtherVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    ShapeError: grpc.StatusCode.INVALID_ARGUMENT,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}


class Answering:
    """Predict and FindSocket of enxerto.inference.v1.ReplicaService, whatever model answers."""

    _socket: SocketServer | None = None

    def __init__(self, secret: str, calls: int) -> None:
        """Answer who knows the secret, so many calls at once that come over gRPC."""
        self._secret = secret.encode()
        self._calls = ThreadPoolExecutor(calls, "calls")
        self._regions = RegionReader()
        self._socket = SocketServer(secret, self.predict)

    def __del__(self) -> None:
        """Serve calls this before it ends a replica."""
        if self._socket is not None:
            self._socket.close()

    def using(self, version: str) -> AbstractContextManager[Predictor]:
        """The predictor of a version, by its full name. Any thread may ask but that of the event loop.

        Raises:
            OtherVersionError: it is none of this replica's.
            NoRoomError, ModelTooLargeError: there is no room for it.
            EnxertoError: it cannot be loaded.
        """
        raise NotImplementedError

    def admits(self, context: Any) -> bool:
        """Whether the caller knows the secret; refuses the call when not."""
        given = dict(context.invocation_metadata()).get(SECRET_KEY, "")
        # What Serve passes on is text or bytes; comparing bytes takes the same time for every wrong secret.
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._secret):
            return True
        _refuse(context, grpc.StatusCode.UNAUTHENTICATED, "this port is for the inference service only")
        return False

    async def Predict(self, request: pb.PredictRequest, grpc_context: Any) -> pb.PredictResponse:  # noqa: N802
        """Run one batch."""
        if not self.admits(grpc_context):
            return pb.PredictResponse()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._calls, self.predict, request)
        except CallRefusedError as error:
            _refuse(grpc_context, error.code, error.text)
            return pb.PredictResponse()

    async def FindSocket(self, request: pb.FindSocketRequest, grpc_context: Any) -> pb.FindSocketResponse:  # noqa: N802
        """Say where callers on this machine may send their batches."""
        if not self.admits(grpc_context):
            return pb.FindSocketResponse()
        return pb.FindSocketResponse(name=self._socket.name() if self._socket is not None else "")

    def predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        """Run one batch, by whatever way it came, in a thread that is the call's own.

        Raises:
            CallRefusedError: there is no answer, and says why.
        """
        try:
            with self.using(request.model_version) as predictor:
                return response(self._answer(predictor, request))
        except RegionError:
            return pb.PredictResponse(memory_apart=True)
        except tuple(_CODES) as error:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            raise CallRefusedError(code, str(error)) from error
        except EnxertoError as error:
            return not_loaded(error)
        except Exception as error:
            # Serve would send the stack to the caller.
            logger.exception("a batch failed")
            text = "the batch failed; the replica's log says why"
            raise CallRefusedError(grpc.StatusCode.INTERNAL, text) from error

    def _answer(self, predictor: Predictor, request: pb.PredictRequest) -> BatchAnswer:
        if request.WhichOneof("batch") == "encoded":
            return predictor.encoded(request.encoded.contents, answer_form(request.encoded), request.outputs)
        if request.WhichOneof("batch") == "shared":
            shape, datatype = tuple(request.shared.shape), request.shared.datatype
            size = math.prod(shape) * ITEM_BYTES.get(datatype, 0)
            content = self._regions.read(request.shared.pid, request.shared.fd, request.shared.nonce, size)
            return predictor.tensor([content], shape, datatype, request.outputs)
        return predictor.tensor(*tensor_arguments(request.tensor), names=request.outputs)


def _refuse(context: Any, code: grpc.StatusCode, text: str) -> None:
    context.set_code(code)
    context.set_details(text)
