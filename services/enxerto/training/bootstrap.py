"""The composition root: the only room that names concrete adapters."""

import asyncio
import contextlib
from pathlib import Path

from enxerto.kernel.clock import SystemClock
from enxerto.runtime.metrics import new_registry
from enxerto.runtime.ray_dashboard import RayDashboard
from enxerto.runtime.sql import opened_engine
from enxerto.training.adapters.codec import spec_to_json
from enxerto.training.adapters.event_log import ObjectJobOutput
from enxerto.training.adapters.import_sources import ImportSources
from enxerto.training.adapters.importer import DatasetImporter
from enxerto.training.adapters.leftovers import StoredLeftovers
from enxerto.training.adapters.object_store import ObjectUploadStore, StoredBlobs, open_store
from enxerto.training.adapters.ray_jobs import RayJobRunner, WorkerLayout
from enxerto.training.adapters.registry_client import GrpcRegistry, open_channel
from enxerto.training.adapters.sql_datasets import SqlDatasetStore
from enxerto.training.adapters.sql_runs import SqlRunStore
from enxerto.training.adapters.sql_sweeps import SqlSweepStore
from enxerto.training.adapters.sql_weights import SqlWeightsCatalogue
from enxerto.training.adapters.status import decode_status, encode_status
from enxerto.training.adapters.telemetry import PrometheusTelemetry
from enxerto.training.adapters.weights_vault import RegistryWeightsVault
from enxerto.training.converters import trial_spec
from enxerto.training.domain import ClusterSize, QueueRules, SweepPlan
from enxerto.training.ports import Search
from enxerto.training.server import serve
from enxerto.training.service import (
    BaseModels,
    Datasets,
    Housekeeping,
    Imports,
    Inquiries,
    Questions,
    Queue,
    Reconciler,
    Runs,
    Signals,
    SweepDriver,
    Sweeps,
    WeightsImports,
    WeightsSupply,
)
from enxerto.training.servicer import DatasetServicer, SweepServicer, TrainingServicer
from enxerto.training.settings import TrainingSettings
from enxerto.vision.archives import ArchiveLimits
from enxerto.vision.images import ImageLimits

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


async def run(settings: TrainingSettings) -> None:
    """Run the training service until it is signalled."""
    store = open_store(settings.blob_url)
    metrics = new_registry()
    telemetry, signals, clock = PrometheusTelemetry(metrics), Signals(), SystemClock()
    scratch = settings.cache_folder / "scratch"
    sources = ImportSources(
        store,
        scratch,
        settings.import_roots,
        settings.import_locations,
        ArchiveLimits(total_bytes=settings.max_unpacked_bytes, entries=settings.max_archive_members),
    )
    limits = ImageLimits(size_bytes=settings.max_image_bytes, pixels=settings.max_image_pixels)
    importer = DatasetImporter(sources, store, scratch, limits, settings.concurrent_imports)
    layout = WorkerLayout(
        python=settings.worker_python,
        blob_url=settings.blob_url,
        cache_folder=settings.worker_cache_folder or settings.cache_folder / "worker",
        weights_folder=settings.weights_folder,
        weights_download=settings.weights_download,
        worker_restarts=settings.worker_restarts,
        cpus_per_worker=settings.cpus_per_worker,
    )
    async with contextlib.AsyncExitStack() as stack:
        database = opened_engine(settings.database_url, MIGRATIONS, "the training service")
        engine = await stack.enter_async_context(database)
        channel = await stack.enter_async_context(open_channel(settings.registry_address, settings.registry_ca))
        dashboard = await stack.enter_async_context(RayDashboard(settings.ray_dashboard_url, settings.ray_token_file))
        datasets, runs, sweeps = SqlDatasetStore(engine), SqlRunStore(engine), SqlSweepStore(engine)
        jobs, output = RayJobRunner(dashboard, store, layout, _grows_to(settings)), ObjectJobOutput(store)
        registry = GrpcRegistry(channel, StoredBlobs(store, settings.cache_folder / "blobs"))
        rules = QueueRules(settings.max_running_runs_per_project, settings.cpus_per_worker)
        queue = Queue(jobs, telemetry, rules)
        catalogue, vault = SqlWeightsCatalogue(engine), RegistryWeightsVault(store, registry, scratch)
        weights = WeightsSupply(catalogue, vault)
        inquiries = Inquiries(jobs, output, decode_status, signals)
        reconciler = Reconciler(
            runs=runs,
            datasets=datasets,
            jobs=jobs,
            output=output,
            registry=registry,
            queue=queue,
            weights=weights,
            encode=encode_status,
            telemetry=telemetry,
            signals=signals,
            clock=clock,
            interval_s=settings.reconcile_interval_s,
        )
        imports = Imports(
            store=datasets,
            importer=importer,
            encode=encode_status,
            telemetry=telemetry,
            signals=signals,
            clock=clock,
        )
        uploads = ObjectUploadStore(store, scratch)
        references = asyncio.Lock()
        dataset_cases = Datasets(
            datasets,
            uploads,
            importer,
            signals,
            clock,
            max_archive_bytes=settings.max_archive_bytes,
            references=references,
        )
        leftovers = StoredLeftovers(store, scratch)
        housekeeping = Housekeeping(datasets, leftovers, clock, keep_s=settings.leftovers_keep_s, references=references)
        run_cases = Runs(
            runs=runs,
            datasets=datasets,
            output=output,
            queue=queue,
            telemetry=telemetry,
            signals=signals,
            clock=clock,
        )
        driver = SweepDriver(
            sweeps=sweeps,
            store=runs,
            runs=run_cases,
            searches=_search,
            trial_specs=trial_spec,
            encode=encode_status,
            signals=signals,
            clock=clock,
        )
        training = TrainingServicer(
            run_cases,
            BaseModels(),
            Questions(datasets, weights, inquiries, spec_to_json),
            weights,
            WeightsImports(catalogue, vault, inquiries, clock, max_bytes=settings.max_weights_bytes),
        )
        await serve(
            settings,
            metrics,
            DatasetServicer(dataset_cases),
            training,
            SweepServicer(Sweeps(sweeps, datasets, signals, clock)),
            background=[reconciler.run, imports.run, driver.run, housekeeping.run],
            on_drain=signals.stop,
        )


def _grows_to(settings: TrainingSettings) -> ClusterSize | None:
    if not settings.cluster_max_cpus:
        return None
    return ClusterSize(settings.cluster_max_cpus, settings.cluster_max_gpus)


def _search(plan: SweepPlan) -> Search:
    # Optuna takes a second to import and most services never see a sweep.
    from enxerto.training.adapters.optuna_search import OptunaSearch  # noqa: PLC0415

    return OptunaSearch(plan)
