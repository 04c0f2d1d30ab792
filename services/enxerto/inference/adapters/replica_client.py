"""Calls to replicas: by their sockets on this machine, else over gRPC, one channel an address."""

import asyncio
import logging
import os
import time
from collections.abc import Collection, Sequence
from typing import Any

import grpc

from enxerto.inference.adapters.replica_memory import IS_AVAILABLE, Region, RegionPool
from enxerto.inference.adapters.replica_socket import (
    MAX_MESSAGE_BYTES,
    CallRefusedError,
    ReplicaSocket,
    SocketLostError,
)
from enxerto.inference.domain import (
    AnswerForm,
    BatchAnswer,
    Endpoint,
    ItemRefusal,
    Occupancy,
    Outline,
    Payload,
    PayloadKind,
    PictureAnswer,
    Segment,
    Tensor,
)
from enxerto.inference.errors import (
    ModelTooLargeError,
    NoRoomError,
    ReplicasUnavailableError,
    VersionNotServableError,
)
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import replica_service_pb2_grpc, vision_pb2
from enxerto.kernel.names import VersionName

logger = logging.getLogger(__name__)

SECRET_KEY = "x-enxerto-replica-secret"  # noqa: S105 - the name of the field, not a secret
APPLICATION_KEY = "application"

_ARRANGE_S = 2.0
_GRACE_S = 60.0
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A whole batch fits the window, so that it travels without waiting for window updates.
    ("grpc.http2.lookahead_bytes", 16 * 2**20),
    ("grpc.http2.max_frame_size", 1 * 2**20),
    ("grpc.http2.write_buffer_size", 1 * 2**20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A replica that comes back on the same address is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_FORMS = {
    AnswerForm.PICTURES: pb.ANSWER_FORM_PICTURES,
    AnswerForm.TENSORS: pb.ANSWER_FORM_TENSORS,
    AnswerForm.RLE: pb.ANSWER_FORM_RLE,
    AnswerForm.POLYGONS: pb.ANSWER_FORM_POLYGONS,
}


class GrpcReplicas:
    """Keeps a channel to every replica in use, and sockets of and memory to share with those on this machine."""

    def __init__(self, secret: str, replica_memory_bytes: int = 0, *, sockets: bool = False) -> None:
        """Call with a secret.

        Args:
            secret: that the replicas ask for.
            replica_memory_bytes: of tensors that are handed over in memory; 0 sends all of them.
            sockets: whether batches go past gRPC where replicas have a socket on this machine.
        """
        self._secret = secret
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._regions = RegionPool(replica_memory_bytes if IS_AVAILABLE else 0)
        self._apart: set[str] = set()
        self._wants_sockets = sockets
        self._sockets: dict[str, ReplicaSocket | None] = {}
        """By address; None where there is none to be found."""

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        """Run one batch on one replica; see `Replicas.predict`."""
        deadline = time.monotonic() + timeout_s
        if payloads[0].kind is PayloadKind.TENSOR and endpoint.address not in self._apart:
            region = self._regions.take(sum(payload.size_bytes for payload in payloads))
            if region is not None:
                try:
                    region.write([part for payload in payloads for part in payload.parts])
                    answer = await self._call(endpoint, shared_request(version, payloads, region), timeout_s)
                finally:
                    self._regions.give_back(region)
                if not answer.memory_apart:
                    return answer_from_proto(answer)
                self._apart.add(endpoint.address)
        left_s = max(deadline - time.monotonic(), 0.001)
        return answer_from_proto(await self._call(endpoint, predict_request(version, payloads), left_s))

    async def _call(self, endpoint: Endpoint, request: pb.PredictRequest, timeout_s: float) -> pb.PredictResponse:
        deadline = time.monotonic() + timeout_s
        answer = await self._call_past_grpc(endpoint, request, timeout_s)
        if answer is None:
            left_s = max(deadline - time.monotonic(), 0.001)
            try:
                answer = await self._stub(endpoint).Predict(request, timeout=left_s, metadata=self._metadata(endpoint))
            except grpc.aio.AioRpcError as error:
                raise _unavailable(error.code(), error.details()) from error
        check_loaded(request, answer)
        return answer

    async def _call_past_grpc(
        self, endpoint: Endpoint, request: pb.PredictRequest, timeout_s: float
    ) -> pb.PredictResponse | None:
        """The answer by the replica's socket; None where there is none, or its connection is lost."""
        if not self._wants_sockets or endpoint.counted:
            return None
        deadline = time.monotonic() + timeout_s
        try:
            if endpoint.address not in self._sockets:
                async with asyncio.timeout(timeout_s):
                    await self._find_socket(endpoint)
            replica = self._sockets.get(endpoint.address)
            if replica is None:
                return None
            return await replica.predict(request, max(deadline - time.monotonic(), 0.001))
        except TimeoutError as error:
            raise _unavailable(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout_s:.3f} s") from error
        except CallRefusedError as error:
            raise _unavailable(error.code, error.text) from error
        except SocketLostError:
            # gRPC shows whether it is the replica that is gone. If not, its socket is looked for again.
            if (lost := self._sockets.pop(endpoint.address, None)) is not None:
                lost.close()
            return None

    async def _find_socket(self, endpoint: Endpoint) -> None:
        address = endpoint.address
        # Until it is found, and for good where there is none, calls take gRPC.
        replica = self._sockets[address] = None
        try:
            request = pb.FindSocketRequest()
            found = await self._stub(endpoint).FindSocket(request, metadata=self._metadata(endpoint))
            if found.name:
                replica = await ReplicaSocket.connect(found.name, self._secret)
        except (grpc.aio.AioRpcError, SocketLostError) as error:
            # Another machine, or a replica from before there were sockets.
            logger.info("a replica is called by gRPC", extra={"endpoint": address, "reason": str(error)})
        except BaseException:
            self._sockets.pop(address, None)
            raise
        self._sockets[address] = replica

    async def arrange(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy:
        """Tell a replica of the pool what it is for; see `Replicas.arrange`."""
        request, metadata = arrange_request(versions, pinned), self._metadata(endpoint)
        try:
            answer = await self._stub(endpoint).Arrange(request, timeout=_ARRANGE_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error.code(), error.details()) from error
        return occupancy_from_proto(answer)

    def _metadata(self, endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
        return (SECRET_KEY, self._secret), (APPLICATION_KEY, endpoint.application)

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        """Close the channels to all other addresses, each when its calls have ended; nobody waits for that."""
        addresses = {endpoint.address for endpoint in endpoints}
        self._apart &= addresses
        for address in set(self._sockets) - addresses:
            if (replica := self._sockets.pop(address)) is not None:
                replica.close()
        stale = [self._channels.pop(address) for address in set(self._channels) - addresses]
        if not addresses:
            self._regions.close()
        for channel in stale:
            closing = asyncio.ensure_future(channel.close(grace=_GRACE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all channels, and wait until their calls have ended."""
        await self.keep(frozenset())
        await asyncio.gather(*self._closing)

    def _stub(self, endpoint: Endpoint) -> "replica_service_pb2_grpc.ReplicaServiceAsyncStub":
        channel = self._channels.get(endpoint.address)
        if channel is None:
            channel = self._channels[endpoint.address] = grpc.aio.insecure_channel(endpoint.address, _OPTIONS)
        return replica_service_pb2_grpc.ReplicaServiceStub(channel)


def _unavailable(code: grpc.StatusCode, text: str | None) -> ReplicasUnavailableError:
    """Whatever a replica says instead of an answer, another one, or the same later, may answer."""
    return ReplicasUnavailableError(f"{code.name}: {(text or '')[:300]}")


def predict_request(version: VersionName, payloads: Sequence[Payload]) -> pb.PredictRequest:
    """One call for payloads of one kind."""
    # Bytes stay what they are, and views of messages become bytes.
    parts = [bytes(part) for payload in payloads for part in payload.parts]
    outputs = _outputs(payloads)
    if payloads[0].kind is PayloadKind.ENCODED:
        images = pb.EncodedImages(contents=parts, form=_FORMS[payloads[0].form])
        return pb.PredictRequest(model_version=str(version), encoded=images, outputs=outputs)
    tensor = pb.RawTensor(parts=parts, shape=_shape(payloads), datatype=payloads[0].datatype)
    return pb.PredictRequest(model_version=str(version), tensor=tensor, outputs=outputs)


def shared_request(version: VersionName, payloads: Sequence[Payload], region: Region) -> pb.PredictRequest:
    """One call for tensors that lie in a region of this process."""
    tensor = pb.SharedTensor(
        pid=os.getpid(), fd=region.fd, nonce=region.nonce, shape=_shape(payloads), datatype=payloads[0].datatype
    )
    return pb.PredictRequest(model_version=str(version), shared=tensor, outputs=_outputs(payloads))


def _shape(payloads: Sequence[Payload]) -> tuple[int, ...]:
    return sum(payload.items for payload in payloads), *payloads[0].row_shape


def _outputs(payloads: Sequence[Payload]) -> set[str]:
    """What any of them asks for; none when one asks for all."""
    if not all(payload.outputs for payload in payloads):
        return set()
    return {name for payload in payloads for name in payload.outputs}


def arrange_request(versions: Collection[VersionName], pinned: Collection[VersionName]) -> pb.ArrangeRequest:
    """What a replica of the pool is told."""
    return pb.ArrangeRequest(model_versions=map(str, versions), pinned_versions=map(str, pinned))


def occupancy_from_proto(message: pb.ArrangeResponse) -> Occupancy:
    """What a replica of the pool holds."""
    return Occupancy(
        message.model_count,
        message.held_bytes,
        message.budget_bytes,
        message.load_count,
        message.eviction_count,
        message.waiting_count,
    )


def check_loaded(request: pb.PredictRequest, response: pb.PredictResponse) -> None:
    """Hold that a replica of the pool had the model.

    Raises:
        NoRoomError, ModelTooLargeError, VersionNotServableError: see `Replicas.predict`.
    """
    if not response.HasField("not_loaded"):
        return
    version, said = VersionName.parse(request.model_version), response.not_loaded
    if said.reason == pb.NotLoaded.REASON_TOO_LARGE:
        raise ModelTooLargeError(version, said.message)
    if said.reason == pb.NotLoaded.REASON_NOT_SERVABLE:
        raise VersionNotServableError(version, said.message)
    raise NoRoomError(version, said.message)


def answer_from_proto(response: pb.PredictResponse) -> BatchAnswer:
    """What a replica said."""
    return BatchAnswer(
        tuple(map(_tensor, response.outputs)),
        tuple(
            PictureAnswer(
                item.width, item.height, tuple(map(_tensor, item.outputs)), tuple(map(_segment, item.segments))
            )
            for item in response.items
        ),
        tuple(ItemRefusal(bad.index, bad.reason, bad.message) for bad in response.errors),
        response.decode_s,
        response.compute_s,
        response.encode_s,
    )


def _tensor(message: pb.OutputTensor) -> Tensor:
    return Tensor(message.name, message.datatype, tuple(message.row_shape), message.content)


def _segment(message: vision_pb2.Segment) -> Segment:
    outlines = tuple(Outline.of(polygon.points, polygon.hole) for polygon in message.polygons)
    return Segment(message.index, message.pixel_count, message.rle, outlines)
