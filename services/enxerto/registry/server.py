"""Puts the registry on the runtime's server."""

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CollectorRegistry

from enxerto.registry.service import Registry
from enxerto.registry.servicer import RegistryServicer
from enxerto.registry.settings import RegistrySettings
from enxerto.registry.v1 import registry_service_pb2
from enxerto.registry.v1.registry_service_pb2_grpc import add_RegistryServiceServicer_to_server
from enxerto.runtime.server import GrpcServer, serve_until_signalled

SERVICES = (registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name,)


def build_server(settings: RegistrySettings, metrics: CollectorRegistry, registry: Registry) -> GrpcServer:
    """A server that listens and is not yet running."""
    servicer = RegistryServicer(registry)
    return GrpcServer(
        settings, metrics, SERVICES, lambda server: add_RegistryServiceServicer_to_server(servicer, server)
    )


async def serve(
    settings: RegistrySettings,
    metrics: CollectorRegistry,
    registry: Registry,
    background: Sequence[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    servicer = RegistryServicer(registry)
    await serve_until_signalled(
        settings,
        metrics,
        SERVICES,
        lambda server: add_RegistryServiceServicer_to_server(servicer, server),
        background=background,
    )
