"""The gRPC server that every service runs on: limits, TLS, health, reflection, drain."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from enxerto.runtime.errors import PortInUseError, StartupError
from enxerto.runtime.interceptors import RpcInterceptor
from enxerto.runtime.metrics import MetricsServer, RpcMetrics
from enxerto.runtime.settings import ServerSettings

logger = logging.getLogger(__name__)

Register = Callable[[grpc.aio.Server], None]
"""Adds servicers to a server."""


class _GenericHandlers:
    """Gives a server the handlers of generated code as generic ones only.

    For methods that are registered one by one grpc.aio has a future each, and waits for all of them anew with every
    call: 0.03 ms for 45 methods. The first generic handler that knows a method is the one that is called.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """They are among the generic ones."""


class GrpcServer:
    """One listening gRPC server. Use `running` to start it and to have it drained at the end."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: CollectorRegistry,
        services: Sequence[str],
        register: Register,
        frequent: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._services = tuple(services)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[RpcInterceptor(RpcMetrics(registry), frequent)],
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # A second process on the same port would silently share its traffic.
                ("grpc.so_reuseport", 0),
                ("grpc.max_metadata_size", 32 * 1024),
                ("grpc.http2.lookahead_bytes", 4 * 2**20),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        handlers = cast(grpc.aio.Server, _GenericHandlers(self._server))
        register(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        reflected = reflection.aio.ReflectionServicer((*services, health.SERVICE_NAME, reflection.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, handlers)  # type: ignore[no-untyped-call]
        self.port = self._bind()

    def _bind(self) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        credentials = _credentials(self._settings)
        try:
            # gRPC would write lines of its own about a port in use; only a rare race still comes to that.
            host = self._settings.host.strip("[]")
            with socket.create_server((host, self._settings.port), family=_family(host)):
                pass
            if credentials:
                return self._server.add_secure_port(address, credentials)
            return self._server.add_insecure_port(address)
        except (RuntimeError, OSError) as error:
            raise PortInUseError(self._settings.host, self._settings.port, "gRPC") from error

    async def set_serving(self, serving: bool) -> None:
        """Say over grpc.health.v1 whether this process wants traffic."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._services):
            await self._health.set(service, status)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve inside the context; on leaving it refuse new calls and let the running ones end."""
        await self._server.start()
        await self.set_serving(True)
        try:
            yield
        finally:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(self._settings.drain_s)


def _family(host: str) -> socket.AddressFamily:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        if settings.tls_certificate or settings.tls_key or settings.tls_client_ca:
            # Half a configuration must not end as plain text.
            raise StartupError("TLS needs both tls_certificate and tls_key")
        return None
    try:
        authorities = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
        pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
    except OSError as error:
        raise StartupError(f"cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_server_credentials([pair], root_certificates=authorities, require_client_auth=bool(authorities))


async def serve_until_signalled(
    settings: ServerSettings,
    registry: CollectorRegistry,
    services: Sequence[str],
    register: Register,
    *,
    frequent: Sequence[str] = (),
    background: Sequence[Callable[[], Awaitable[None]]] = (),
    on_drain: Callable[[], None] | None = None,
) -> None:
    """Run a service until SIGTERM or SIGINT, then drain.

    Args:
        settings: where and how to listen.
        registry: what the metrics port exposes.
        services: full gRPC service names, for health and reflection.
        register: adds the servicers.
        frequent: see `RpcInterceptor`.
        background: loops that run beside the server; one that ends or fails ends the process, for its supervisor to
            start again.
        on_drain: told before the running calls are waited for, so that endless streams can end themselves.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    server = GrpcServer(settings, registry, services, register, frequent)
    tasks: list[asyncio.Future[Any]] = []
    with MetricsServer(registry, settings.metrics_host, settings.metrics_port) as metrics:
        try:
            async with server.running():
                tasks = [asyncio.ensure_future(run()) for run in background]
                ports = {"port": server.port, "metrics_port": metrics.port}
                if settings.ready_file:
                    await asyncio.to_thread(_write_whole, settings.ready_file, json.dumps(ports))
                logger.info("listening", extra=ports)
                stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
                await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                logger.info("draining", extra={"signalled": stop.is_set()})
                if on_drain is not None:
                    on_drain()
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failures:
        raise failures[0]
    logger.info("stopped")


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)
