"""The composition root: the only room that names concrete adapters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from enxerto.inference.adapters.prometheus_meter import PrometheusMeter
from enxerto.inference.adapters.registry_client import RegistryClient, open_channel
from enxerto.inference.adapters.replica_client import GrpcReplicas
from enxerto.inference.adapters.sample_files import open_sample_files
from enxerto.inference.adapters.serve_cluster import PoolOptions, ReplicaOptions, ServeCluster, ServePorts
from enxerto.inference.adapters.sql_quality import SqlQualityStore
from enxerto.inference.adapters.sql_store import open_deployment_store
from enxerto.inference.domain import Pool, Scale, ServableVersion
from enxerto.inference.oip.shared_memory import Regions
from enxerto.inference.ports import (
    DeploymentStore,
    Meter,
    ModelRegistry,
    QualityStore,
    ReplicaCluster,
    Replicas,
    SampleFiles,
)
from enxerto.inference.server import UseCases, serve
from enxerto.inference.service import (
    BatchLimits,
    CountedPredictions,
    Deployments,
    Fleet,
    Lanes,
    ObservationLimits,
    Observer,
    Pace,
    Pooling,
    ProjectRates,
    Quality,
    Reconciler,
    References,
    RequestLimits,
    ResponseCaches,
    Retention,
    Route,
    Router,
    Samples,
    Shadowing,
    Statistics,
    Trials,
    WatchedStore,
)
from enxerto.inference.settings import InferenceSettings
from enxerto.kernel.clock import Clock, SystemClock
from enxerto.kernel.names import DeploymentName
from enxerto.runtime.allocator import keep_freed_memory
from enxerto.runtime.errors import StartupError
from enxerto.runtime.metrics import new_registry
from enxerto.runtime.ray_dashboard import RayDashboard

_MIN_SECRET_CHARACTERS = 32
_REPORT_S = 10.0


def wire(
    settings: InferenceSettings,
    *,
    store: DeploymentStore,
    registry: ModelRegistry,
    cluster: ReplicaCluster,
    replicas: Replicas,
    quality: QualityStore,
    sample_files: SampleFiles,
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
        settings.max_content_bytes,
        settings.stream_max_in_flight,
    )
    pace = Pace(
        settings.alias_poll_s,
        min(0.2, settings.alias_poll_s),
        settings.bring_up_s,
        look_s=settings.replica_poll_s,
    )
    caches = ResponseCaches(settings.response_cache_max_bytes, meter)
    router, poked, watched = Router(caches), asyncio.Event(), WatchedStore(store)
    references, shadowing = References(registry, watched, clock), Shadowing(meter, settings.shadow_report_s)
    statistics = Statistics(clock)
    pooling = Pooling(Pool(Scale(settings.pool_replicas)), replicas, meter)
    fleet = Fleet(cluster, pooling, pace.drain_s, poked.set)

    def new_route(name: DeploymentName, version: ServableVersion, limits: BatchLimits) -> Route:
        counted = statistics.meter(name, version.name, meter)
        return Route(name, version, replicas, batches=limits, meter=counted, on_failure=poked.set)

    lanes = Lanes(
        references=references,
        fleet=fleet,
        trials=Trials(pace.patience_s, poked.set),
        router=router,
        new_route=new_route,
        limits=batches,
        clock=clock,
        meter=meter,
        bring_up_s=pace.bring_up_s,
    )
    reconciler = Reconciler(
        store=watched,
        references=references,
        fleet=fleet,
        lanes=lanes,
        replicas=replicas,
        router=router,
        clock=clock,
        meter=meter,
        pace=pace,
        shadowing=shadowing,
        poked=poked,
    )
    deployments = Deployments(watched, registry, clock, router, reconciler.poke)
    retention = Retention(feedback_days=settings.feedback_days)
    samples = Samples(
        deployments=store, store=quality, files=sample_files, clock=clock, meter=meter, retention=retention
    )
    looks = ObservationLimits(settings.observed_images_per_s, settings.drift_threshold)
    observer = Observer(registry, meter, looks, samples.offer)
    seen = Quality(deployments=store, store=quality, registry=registry, observations=observer, clock=clock, meter=meter)
    predictions = CountedPredictions(
        router,
        requests,
        meter,
        clock,
        rates=ProjectRates(settings.project_images_per_s, settings.project_burst_images),
        shadowing=shadowing,
        observer=observer,
        caches=caches,
        statistics=statistics,
    )
    regions = Regions() if settings.shared_memory else None
    return UseCases(deployments, predictions, reconciler, regions, seen, samples, observer, watched.stop)


@asynccontextmanager
async def compose(settings: InferenceSettings, metrics: CollectorRegistry) -> AsyncIterator[UseCases]:
    """Open everything and wire it; closes it at the end.

    Raises:
        StartupError: the database or the secret cannot be read.
    """
    secret = _secret(settings)
    dashboard = RayDashboard(settings.ray_dashboard_url, settings.ray_token_file, timeout_s=60)
    direct = settings.replica_path == "direct"
    cluster = ServeCluster(
        dashboard,
        ReplicaOptions(
            settings.registry_address,
            settings.registry_certificates,
            settings.replica_secret_file,
            settings.effective_model_cache_folder,
            settings.replica_cpus,
            settings.replica_gpus,
            settings.replica_threads,
            settings.max_image_pixels,
            settings.max_image_bytes,
            PoolOptions(settings.pool_memory_bytes, settings.pool_wait_s, settings.pool_max_waiting),
            settings.replica_tensorrt,
        ),
        ServePorts(settings.serve_http_port, settings.serve_grpc_port),
        direct,
    )
    replicas = GrpcReplicas(secret, settings.replica_memory_bytes, sockets=direct and settings.replica_memory_bytes > 0)
    async with (
        open_deployment_store(settings.effective_database_url) as store,
        dashboard,
        open_channel(settings.registry_address, settings.registry_certificates) as channel,
    ):
        wired = wire(
            settings,
            store=store,
            registry=RegistryClient(channel),
            cluster=cluster,
            replicas=replicas,
            quality=SqlQualityStore(store.engine),
            sample_files=open_sample_files(settings.samples_url, settings.effective_samples_folder),
            clock=SystemClock(),
            meter=PrometheusMeter(metrics),
        )
        try:
            yield wired
        finally:
            if wired.regions is not None:
                wired.regions.unregister()
            await replicas.close()


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
    keep_freed_memory()
    metrics = new_registry()
    async with compose(settings, metrics) as wired:

        async def report_drift() -> None:
            while True:
                wired.observer.report(wired.predictions.answering())
                await asyncio.sleep(_REPORT_S)

        loops = [wired.reconciler.run, wired.samples.run, report_drift]
        await serve(settings, metrics, wired, loops)
