"""Connections to replicas that are used no more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from enxerto.inference.adapters.replica_client import GrpcReplicas
from enxerto.inference.domain import Endpoint, Payload, PayloadKind
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.inference.v1 import replica_service_pb2_grpc
from enxerto.kernel.names import VersionName

VERSION = VersionName("default", "m", 1)


class SlowReplica(replica_service_pb2_grpc.ReplicaServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        self.asked.set()
        await self.answer.wait()
        return pb.PredictResponse()


@pytest.fixture
async def slow() -> AsyncIterator[tuple[SlowReplica, Endpoint]]:
    replica, server = SlowReplica(), grpc.aio.server()
    replica_service_pb2_grpc.add_ReplicaServiceServicer_to_server(replica, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield replica, Endpoint(f"127.0.0.1:{port}", "a")
    await server.stop(0)


async def test_nobody_waits_for_the_calls_of_a_connection_that_is_closed(slow: tuple[SlowReplica, Endpoint]) -> None:
    replica, endpoint = slow
    replicas = GrpcReplicas("secret")
    call = asyncio.ensure_future(replicas.predict(endpoint, VERSION, [Payload(PayloadKind.ENCODED, (b"x",), 1)], 20.0))
    await replica.asked.wait()
    await asyncio.wait_for(replicas.keep(frozenset()), 5.0)
    closing = asyncio.ensure_future(replicas.close())
    await asyncio.sleep(0.1)
    assert not closing.done()
    replica.answer.set()
    assert (await call).tensors == ()
    await asyncio.wait_for(closing, 5.0)
