"""The composition root: the only room that names concrete adapters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from enxerto.inference.adapters.prometheus_meter import PrometheusMeter
from enxerto.inference.adapters.registry_client import RegistryClient, open_channel
from enxerto.inference.adapters.replica_client import GrpcReplicas
from enxerto.inference.adapters.serve_cluster import ReplicaOptions, ServeCluster, ServePorts
from enxerto.inference.adapters.sql_store import open_deployment_store
from enxerto.inference.domain import ServableVersion
from enxerto.inference.ports import DeploymentStore, Meter, ModelRegistry, ReplicaCluster, Replicas
from enxerto.inference.server import UseCases, serve
from enxerto.inference.service import (
    BatchLimits,
    Deployments,
    Pace,
    Predictions,
    Reconciler,
    RequestLimits,
    Route,
    Router,
)
from enxerto.inference.settings import InferenceSettings
from enxerto.kernel.clock import Clock, SystemClock
from enxerto.kernel.names import DeploymentName
from enxerto.runtime.errors import StartupError
from enxerto.runtime.metrics import new_registry
from enxerto.runtime.ray_dashboard import RayDashboard

_MIN_SECRET_CHARACTERS = 32


def wire(
    settings: InferenceSettings,
    *,
    store: DeploymentStore,
    registry: ModelRegistry,
    cluster: ReplicaCluster,
    replicas: Replicas,
    clock: Clock,
    meter: Meter,
) -> UseCases:
    """Put the use cases together over whatever adapters are given."""
    batches = BatchLimits(
        max_items=settings.batch_max_size,
        max_bytes=settings.batch_max_bytes,
        max_delay_s=settings.batch_max_delay_s,
        concurrency=settings.batch_concurrency,
        max_queued_items=settings.queue_max_items,
        max_queued_bytes=settings.queue_max_bytes,
    )
    requests = RequestLimits(
        settings.max_items,
        settings.max_image_bytes,
        settings.request_timeout_s,
        settings.max_answer_bytes,
        settings.stream_max_in_flight,
    )
    pace = Pace(settings.alias_poll_s, min(0.2, settings.alias_poll_s), settings.bring_up_s)
    router = Router()

    def new_route(name: DeploymentName, version: ServableVersion) -> Route:
        return Route(name, version, replicas, batches=batches, meter=meter, on_failure=lambda: reconciler.poke())  # noqa: PLW0108 - it is made after this

    reconciler = Reconciler(
        store=store,
        registry=registry,
        cluster=cluster,
        replicas=replicas,
        router=router,
        new_route=new_route,
        clock=clock,
        meter=meter,
        pace=pace,
    )
    deployments = Deployments(store, registry, clock, reconciler.poke)
    return UseCases(deployments, Predictions(router, requests, meter), reconciler)


@asynccontextmanager
async def compose(settings: InferenceSettings, metrics: CollectorRegistry) -> AsyncIterator[UseCases]:
    """Open everything and wire it; closes it at the end.

    Raises:
        StartupError: the database or the secret cannot be read.
    """
    secret = _secret(settings)
    dashboard = RayDashboard(settings.ray_dashboard_url, settings.ray_token_file, timeout_s=60)
    cluster = ServeCluster(
        dashboard,
        ReplicaOptions(
            settings.registry_address,
            settings.registry_certificates,
            settings.replica_secret_file,
            settings.effective_model_cache_folder,
            settings.replica_cpus,
            settings.replica_threads,
            settings.max_image_pixels,
            settings.max_image_bytes,
        ),
        ServePorts(settings.serve_http_port, settings.serve_grpc_port),
        settings.replica_path == "direct",
    )
    replicas = GrpcReplicas(secret, settings.shared_memory_bytes)
    async with (
        open_deployment_store(settings.effective_database_url) as store,
        dashboard,
        open_channel(settings.registry_address, settings.registry_certificates) as channel,
    ):
        yield wire(
            settings,
            store=store,
            registry=RegistryClient(channel),
            cluster=cluster,
            replicas=replicas,
            clock=SystemClock(),
            meter=PrometheusMeter(metrics),
        )
        await replicas.keep(frozenset())


def _secret(settings: InferenceSettings) -> str:
    try:
        secret = settings.replica_secret_file.read_text().strip()
    except OSError as error:
        raise StartupError(f"cannot read ENXERTO_INFERENCE_REPLICA_SECRET_FILE: {error}") from error
    if len(secret) < _MIN_SECRET_CHARACTERS:
        raise StartupError(f"the replica secret must have at least {_MIN_SECRET_CHARACTERS} characters")
    return secret


async def run(settings: InferenceSettings) -> None:
    """Run the service until it is told to stop."""
    metrics = new_registry()
    async with compose(settings, metrics) as wired:
        loops = [wired.reconciler.run]
        await serve(settings, metrics, wired, loops)
