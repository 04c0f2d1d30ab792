"""A service of raw bytes on the runtime's server, so that the shell is tested without any of the three services."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from enxerto.runtime.server import GrpcServer
from enxerto.runtime.settings import ServerSettings

SERVICE = "test.Bytes"


@dataclass(frozen=True, slots=True)
class Running:
    """A served handler and its client."""

    channel: grpc.aio.Channel
    collectors: CollectorRegistry
    server: GrpcServer

    def unary(self, request: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/Unary")(request, **options)

    def stream(self, request: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_stream(f"/{SERVICE}/Stream")(request, **options)

    def collect(self, requests: Any, **options: Any) -> Any:
        return self.channel.stream_unary(f"/{SERVICE}/Collect")(requests, **options)

    async def handled(self, method: str) -> dict[str, float]:
        """Code to count of one method's calls, once none is running: a client hears of the end before it is counted."""
        while self.in_flight(method):
            await asyncio.sleep(0.01)
        start = 'enxerto_rpc_handled_total{code="'
        found = {}
        for line in generate_latest(self.collectors).decode().splitlines():
            if line.startswith(start) and f'method="{method}"' in line:
                found[line.removeprefix(start).partition('"')[0]] = float(line.rpartition(" ")[2])
        return found

    def in_flight(self, method: str) -> float:
        value = self.collectors.get_sample_value("enxerto_rpc_in_flight", {"service": SERVICE, "method": method})
        return 0.0 if value is None else value


class Serve(Protocol):
    """Serves handlers."""

    def __call__(
        self,
        *,
        unary: Callable[[bytes, Any], Awaitable[bytes]] | None = None,
        stream: Callable[[bytes, Any], Any] | None = None,
        collect: Callable[[Any, Any], Awaitable[bytes]] | None = None,
        frequent: tuple[str, ...] = (),
        **settings: Any,
    ) -> Any: ...


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def served(
        *, unary: Any = None, stream: Any = None, collect: Any = None, frequent: tuple[str, ...] = (), **settings: Any
    ) -> AsyncIterator[Running]:
        handlers = {}
        if unary:
            handlers["Unary"] = grpc.unary_unary_rpc_method_handler(unary)
        if stream:
            handlers["Stream"] = grpc.unary_stream_rpc_method_handler(stream)
        if collect:
            handlers["Collect"] = grpc.stream_unary_rpc_method_handler(collect)
        collectors = CollectorRegistry()
        handler = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server = GrpcServer(
            ServerSettings(**{"drain_s": 1.0, **settings}),
            collectors,
            [SERVICE],
            lambda grpc_server: grpc_server.add_generic_rpc_handlers((handler,)),
            frequent,
        )
        async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Running(channel, collectors, server)

    return served
