"""The composition root: the only room that names concrete adapters."""

import contextlib
from pathlib import Path

from enxerto.kernel.clock import SystemClock
from enxerto.runtime.metrics import new_registry
from enxerto.runtime.ray_dashboard import RayDashboard
from enxerto.runtime.sql import create_engine, migrate
from enxerto.training.adapters.event_log import ObjectJobOutput
from enxerto.training.adapters.import_sources import ImportSources
from enxerto.training.adapters.importer import DatasetImporter
from enxerto.training.adapters.object_store import ObjectUploadStore, StoredBlobs, open_store
from enxerto.training.adapters.ray_jobs import RayJobRunner, WorkerLayout
from enxerto.training.adapters.registry_client import GrpcRegistry, open_channel
from enxerto.training.adapters.sql_datasets import SqlDatasetStore
from enxerto.training.adapters.sql_runs import SqlRunStore
from enxerto.training.adapters.status import encode_status
from enxerto.training.adapters.telemetry import PrometheusTelemetry
from enxerto.training.server import serve
from enxerto.training.service import BaseModels, Datasets, Imports, Reconciler, Runs, Signals
from enxerto.training.servicer import DatasetServicer, TrainingServicer
from enxerto.training.settings import TrainingSettings
from enxerto.vision.archives import ArchiveLimits
from enxerto.vision.images import ImageLimits

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


async def run(settings: TrainingSettings) -> None:
    """Run the training service until it is signalled."""
    await migrate(settings.database_url, MIGRATIONS)
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
    )
    async with contextlib.AsyncExitStack() as stack:
        engine = create_engine(settings.database_url)
        stack.push_async_callback(engine.dispose)
        channel = await stack.enter_async_context(open_channel(settings.registry_address, settings.registry_ca))
        dashboard = await stack.enter_async_context(RayDashboard(settings.ray_dashboard_url, settings.ray_token_file))
        datasets, runs = SqlDatasetStore(engine), SqlRunStore(engine)
        reconciler = Reconciler(
            runs=runs,
            datasets=datasets,
            jobs=RayJobRunner(dashboard, store, layout),
            output=ObjectJobOutput(store),
            registry=GrpcRegistry(channel, StoredBlobs(store, settings.cache_folder / "blobs")),
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
        dataset_cases = Datasets(
            datasets, uploads, importer, signals, clock, max_archive_bytes=settings.max_archive_bytes
        )
        await serve(
            settings,
            metrics,
            DatasetServicer(dataset_cases),
            TrainingServicer(Runs(runs, datasets, telemetry, signals, clock), BaseModels()),
            background=[reconciler.run, imports.run],
            on_drain=signals.stop,
        )
