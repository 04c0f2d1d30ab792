"""Limits, health, reflection, drain, TLS and what keeps a server from starting."""

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from enxerto.runtime.errors import PortInUseError, StartupError
from enxerto.runtime.metrics import MetricsServer
from enxerto.runtime.server import GrpcServer
from enxerto.runtime.settings import ServerSettings

SERVICE = "test.Bytes"


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def test_health_is_told_and_watched(serve: Any) -> None:
    async with serve(unary=echo) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        for service in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await running.server.set_serving(False)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="none"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(serve: Any) -> None:
    async with serve(unary=echo) as running:
        call = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()
        names = {service.name for service in answer.list_services_response.service}
        assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_leaving_drains_the_running_call_and_refuses_new_ones(serve: Any) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _context: Any) -> bytes:
        entered.set()
        await go_on.wait()
        return request

    serving = serve(unary=slow, drain_s=10)
    running = await serving.__aenter__()
    address = f"127.0.0.1:{running.server.port}"
    async with grpc.aio.insecure_channel(address) as channel, grpc.aio.insecure_channel(address) as late:
        call = channel.unary_unary(f"/{SERVICE}/Unary")(b"x")
        await entered.wait()
        leaving = asyncio.ensure_future(serving.__aexit__(None, None, None))
        while True:
            try:
                with socket.create_connection(("127.0.0.1", running.server.port), timeout=1):
                    await asyncio.sleep(0.02)
            except OSError:
                break
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late.unary_unary(f"/{SERVICE}/Unary")(b"y", timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        go_on.set()
        assert await call == b"x"
        await leaving


async def test_a_call_that_outlives_the_drain_is_cancelled(serve: Any) -> None:
    entered = asyncio.Event()

    async def endless(_request: bytes, _context: Any) -> bytes:
        entered.set()
        await asyncio.Event().wait()
        return b""

    serving = serve(unary=endless, drain_s=0.2)
    running = await serving.__aenter__()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Unary")(b"x")
        await entered.wait()
        await serving.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"cannot listen on 127.0.0.1:{port} for gRPC"):
            GrpcServer(ServerSettings(port=port), CollectorRegistry(), [], lambda _server: None)
        with pytest.raises(PortInUseError, match=f"cannot listen on 127.0.0.1:{port} for metrics"):
            MetricsServer(CollectorRegistry(), "127.0.0.1", port)


@pytest.mark.parametrize("setting", ["tls_certificate", "tls_key", "tls_client_ca"])
async def test_half_a_tls_configuration_does_not_end_as_plain_text(setting: str) -> None:
    with pytest.raises(StartupError, match="TLS needs both"):
        GrpcServer(ServerSettings(**{setting: "file.pem"}), CollectorRegistry(), [], lambda _server: None)


async def test_more_calls_than_allowed_are_resource_exhausted(serve: Any) -> None:
    entered = asyncio.Event()

    async def endless(_request: bytes, _context: Any) -> bytes:
        entered.set()
        await asyncio.Event().wait()
        return b""

    async with serve(unary=endless, max_concurrent_rpcs=1, drain_s=0) as running:
        first = running.unary()
        await entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.unary(timeout=5)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
