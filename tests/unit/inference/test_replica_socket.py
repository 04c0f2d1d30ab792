"""Batches past gRPC: a replica's own socket, and what happens where it is missing or ends."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import numpy as np
import pytest

from enxerto.inference.adapters.replica_client import GrpcReplicas
from enxerto.inference.adapters.replica_socket import CallRefusedError, ReplicaSocket, SocketLostError, SocketServer
from enxerto.inference.domain import BatchAnswer, Endpoint, Payload, PayloadKind
from enxerto.inference.errors import ReplicasUnavailableError
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import replica_service_pb2_grpc
from enxerto.kernel.names import VersionName

VERSION = VersionName("default", "m", 1)
ROW = (3, 4, 4)
ROWS = np.random.default_rng(0).random((2, *ROW), np.float32)
SECRET = "secret"


def answer(request: pb.PredictRequest) -> pb.PredictResponse:
    """Each row's sum."""
    sums = np.frombuffer(b"".join(request.tensor.parts), "<f4").reshape(-1, 48).sum(axis=1, keepdims=True)
    return pb.PredictResponse(
        outputs=[pb.OutputTensor(name="sums", datatype="FP32", row_shape=[1], content=sums.tobytes())]
    )


class Replica(replica_service_pb2_grpc.ReplicaServiceServicer):
    """Has a socket, and counts by which way its calls came."""

    def __init__(self, secret: str = SECRET) -> None:
        self.by_grpc = self.by_socket = 0
        self.counting = threading.Lock()
        self.refusal: CallRefusedError | None = None
        self.held: threading.Event | None = None
        self.running = threading.Event()
        self.socket = SocketServer(secret, self.predict)

    def predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        with self.counting:
            self.by_socket += 1
        self.running.set()
        if self.held is not None:
            self.held.wait()
        if self.refusal is not None:
            raise self.refusal
        return answer(request)

    async def Predict(self, request: pb.PredictRequest, context: object) -> pb.PredictResponse:  # noqa: N802
        self.by_grpc += 1
        return answer(request)

    async def FindSocket(self, request: pb.FindSocketRequest, context: object) -> pb.FindSocketResponse:  # noqa: N802
        return pb.FindSocketResponse(name=self.socket.name())


class Front:
    """Calls one replica."""

    def __init__(self, address: str) -> None:
        self.replicas = GrpcReplicas(SECRET, sockets=True)
        self.address = address

    async def ask(self, *, counted: bool = False, timeout_s: float = 10.0) -> BatchAnswer:
        payload = Payload(PayloadKind.TENSOR, (ROWS.tobytes(),), 2, ROW)
        return await self.replicas.predict(Endpoint(self.address, "a", counted), VERSION, [payload], timeout_s)


def sums(found: BatchAnswer) -> list[float]:
    return np.frombuffer(found.tensors[0].content, "<f4").tolist()


EXPECTED = pytest.approx(ROWS.reshape(2, -1).sum(axis=1).tolist(), rel=1e-5)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Any], Any]]:
    async with AsyncExitStack() as stack:

        async def connected(servicer: Any) -> Front:
            server = grpc.aio.server()
            replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server(servicer, server)
            front = Front(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
            stack.push_async_callback(front.replicas.keep, frozenset())
            if isinstance(servicer, Replica):
                stack.callback(servicer.socket.close)
            return front

        yield connected


async def test_batches_go_by_the_socket_many_at_once(connect: Any) -> None:
    replica = Replica()
    front = await connect(replica)
    assert sums(await front.ask()) == EXPECTED
    for found in await asyncio.gather(*(front.ask() for _ in range(20))):
        assert sums(found) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (21, 0)


async def test_calls_that_the_cluster_counts_stay_where_it_sees_them(connect: Any) -> None:
    replica = Replica()
    front = await connect(replica)
    assert sums(await front.ask(counted=True)) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (0, 1)


@pytest.mark.parametrize("missing", ["elsewhere", "none", "unknown", "secret"])
async def test_without_a_socket_batches_go_by_grpc(connect: Any, missing: str) -> None:
    class Without(Replica):
        async def FindSocket(self, request: Any, context: Any) -> pb.FindSocketResponse:  # noqa: N802
            if missing == "unknown":
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "from before there were sockets")
            return pb.FindSocketResponse(name="" if missing == "none" else "enxerto-replica-elsewhere")

    replica = Replica("another secret") if missing == "secret" else Without()
    front = await connect(replica)
    for _ in range(2):
        assert sums(await front.ask()) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (0, 2)


async def test_a_replica_that_ends_answers_what_runs_and_the_rest_goes_by_grpc(connect: Any) -> None:
    replica = Replica()
    front = await connect(replica)
    await front.ask()
    replica.held = threading.Event()
    replica.running.clear()
    running = asyncio.ensure_future(front.ask())
    await asyncio.to_thread(replica.running.wait)
    replica.socket.close()
    assert sums(await front.ask()) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (2, 1)
    replica.held.set()
    assert sums(await running) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (2, 1)


async def test_a_refusal_is_the_replicas_answer(connect: Any) -> None:
    replica = Replica()
    replica.refusal = CallRefusedError(grpc.StatusCode.FAILED_PRECONDITION, "another version")
    front = await connect(replica)
    with pytest.raises(ReplicasUnavailableError, match="FAILED_PRECONDITION: another version"):
        await front.ask()
    replica.refusal = None
    assert sums(await front.ask()) == EXPECTED
    assert (replica.by_socket, replica.by_grpc) == (2, 0)


async def test_a_call_ends_with_its_time_and_the_next_one_is_answered(connect: Any) -> None:
    replica = Replica()
    front = await connect(replica)
    await front.ask()
    replica.held = held = threading.Event()
    with pytest.raises(ReplicasUnavailableError, match="DEADLINE_EXCEEDED"):
        await front.ask(timeout_s=0.05)
    replica.held = None
    assert sums(await front.ask()) == EXPECTED
    assert replica.by_grpc == 0
    held.set()


async def test_large_answers_come_whole() -> None:
    content = np.random.default_rng(0).bytes(9 * 2**20)
    server = SocketServer(SECRET, lambda _: pb.PredictResponse(outputs=[pb.OutputTensor(content=content)]))
    replica = await ReplicaSocket.connect(server.name(), SECRET)
    for _ in range(2):
        answer = await replica.predict(pb.PredictRequest(), 10)
        assert answer.outputs[0].content == content
    replica.close()
    server.close()


@pytest.mark.parametrize(
    ("said", "ends"),
    [(b"\0\0\0\0\xff", False), (b"\0\1\0\0\0xy", False), (b"\0\2\0\0\0x", True), (b"", True)],
    ids=["too-large", "too-much", "half", "nothing"],
)
async def test_what_is_no_answer_is_a_lost_connection(said: bytes, ends: bool) -> None:
    closed = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        if not ends:
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        closed.set()

    name = f"enxerto-test-{secrets.token_hex(8)}"
    async with await asyncio.start_unix_server(speak, f"\0{name}"):
        with pytest.raises(SocketLostError):
            await ReplicaSocket(name, SECRET).predict(pb.PredictRequest(), 10)
        await closed.wait()


async def test_strangers_and_nonsense_get_no_answer() -> None:
    replica = Replica()
    name = replica.socket.name()
    assert replica.socket.name() == name
    request = pb.PredictRequest(model_version=str(VERSION))
    with pytest.raises(SocketLostError):
        await ReplicaSocket(name, "guessed").predict(request, 10)
    with pytest.raises(SocketLostError):
        await ReplicaSocket("enxerto-replica-nowhere", SECRET).predict(request, 10)
    for sent in (b"\0\x07\0\0\0", b"\0\x02\0\0\0no", b"\0\x06\0\0\0secret\0\x02\0\0\0no"):
        reader, writer = await asyncio.open_unix_connection(f"\0{name}")
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
    assert replica.by_socket == 0
    replica.socket.close()
    assert replica.socket.name() == ""
