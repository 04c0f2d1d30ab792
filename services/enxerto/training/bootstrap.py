"""The composition root: the only room that names concrete adapters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from obstore.store import ObjectStore

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


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the use cases reach the world through."""

    datasets: SqlDatasetStore
    runs: SqlRunStore
    sweeps: SqlSweepStore
    catalogue: SqlWeightsCatalogue
    vault: RegistryWeightsVault
    jobs: RayJobRunner
    output: ObjectJobOutput
    registry: GrpcRegistry
    importer: DatasetImporter
    uploads: ObjectUploadStore
    leftovers: StoredLeftovers


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every use case has around it."""

    telemetry: PrometheusTelemetry
    signals: Signals
    clock: SystemClock


Loop = Callable[[], Awaitable[None]]


async def run(settings: TrainingSettings) -> None:
    """Run the training service until it is signalled."""
    metrics = new_registry()
    around = Surroundings(PrometheusTelemetry(metrics), Signals(), SystemClock())
    async with _opened(settings) as adapters:
        datasets, data_loops = _wire_datasets(settings, adapters, around)
        training, runs, reconcile = _wire_runs(settings, adapters, around)
        sweeps, drive = _wire_sweeps(adapters, around, runs)
        await serve(
            settings,
            metrics,
            datasets,
            training,
            sweeps,
            background=[reconcile, drive, *data_loops],
            on_drain=around.signals.stop,
        )


@contextlib.asynccontextmanager
async def _opened(settings: TrainingSettings) -> AsyncIterator[Adapters]:
    """Open every connection; closes them at the end."""
    store, scratch = open_store(settings.blob_url), settings.cache_folder / "scratch"
    grows_to = ClusterSize(settings.cluster_max_cpus, settings.cluster_max_gpus)
    async with (
        opened_engine(settings.database_url, MIGRATIONS, "the training service") as engine,
        open_channel(settings.registry_address, settings.registry_ca) as channel,
        RayDashboard(settings.ray_dashboard_url, settings.ray_token_file) as dashboard,
    ):
        registry = GrpcRegistry(channel, StoredBlobs(store, settings.cache_folder / "blobs"))
        yield Adapters(
            datasets=SqlDatasetStore(engine),
            runs=SqlRunStore(engine),
            sweeps=SqlSweepStore(engine),
            catalogue=SqlWeightsCatalogue(engine),
            vault=RegistryWeightsVault(store, registry, scratch),
            jobs=RayJobRunner(dashboard, store, _worker_layout(settings), grows_to),
            output=ObjectJobOutput(store),
            registry=registry,
            importer=_importer(settings, store, scratch),
            uploads=ObjectUploadStore(store, scratch),
            leftovers=StoredLeftovers(store, scratch),
        )


def _wire_datasets(
    settings: TrainingSettings, adapters: Adapters, around: Surroundings
) -> tuple[DatasetServicer, list[Loop]]:
    """The datasets, and the loops that import them and clear what is left over."""
    # Whoever comes to refer to an uploaded archive, and whoever deletes archives that nobody refers to, hold it.
    references = asyncio.Lock()
    datasets = Datasets(
        adapters.datasets,
        adapters.uploads,
        adapters.importer,
        around.signals,
        around.clock,
        max_archive_bytes=settings.max_archive_bytes,
        references=references,
    )
    imports = Imports(
        store=adapters.datasets,
        importer=adapters.importer,
        encode=encode_status,
        telemetry=around.telemetry,
        signals=around.signals,
        clock=around.clock,
    )
    housekeeping = Housekeeping(
        adapters.datasets,
        adapters.runs,
        adapters.leftovers,
        around.clock,
        keep_s=settings.leftovers_keep_s,
        references=references,
    )
    return DatasetServicer(datasets), [imports.run, housekeeping.run]


def _wire_runs(
    settings: TrainingSettings, adapters: Adapters, around: Surroundings
) -> tuple[TrainingServicer, Runs, Loop]:
    """Runs and what is asked before one, and the loop that drives them."""
    rules = QueueRules(settings.max_running_runs_per_project, settings.cpus_per_worker)
    queue = Queue(adapters.jobs, around.telemetry, rules)
    weights = WeightsSupply(adapters.catalogue, adapters.vault)
    inquiries = Inquiries(adapters.jobs, adapters.output, decode_status, around.signals)
    runs = Runs(
        runs=adapters.runs,
        datasets=adapters.datasets,
        registry=adapters.registry,
        output=adapters.output,
        queue=queue,
        telemetry=around.telemetry,
        signals=around.signals,
        clock=around.clock,
    )
    reconciler = Reconciler(
        runs=adapters.runs,
        datasets=adapters.datasets,
        jobs=adapters.jobs,
        output=adapters.output,
        registry=adapters.registry,
        queue=queue,
        weights=weights,
        encode=encode_status,
        telemetry=around.telemetry,
        signals=around.signals,
        clock=around.clock,
        interval_s=settings.reconcile_interval_s,
    )
    servicer = TrainingServicer(
        runs,
        BaseModels(),
        Questions(adapters.datasets, weights, inquiries, spec_to_json, jobs=adapters.jobs, clock=around.clock),
        weights,
        WeightsImports(
            adapters.catalogue, adapters.vault, inquiries, around.clock, max_bytes=settings.max_weights_bytes
        ),
    )
    return servicer, runs, reconciler.run


def _wire_sweeps(adapters: Adapters, around: Surroundings, runs: Runs) -> tuple[SweepServicer, Loop]:
    """Searches, and the loop that asks for their trials."""
    driver = SweepDriver(
        sweeps=adapters.sweeps,
        store=adapters.runs,
        runs=runs,
        searches=_search,
        trial_specs=trial_spec,
        encode=encode_status,
        signals=around.signals,
        clock=around.clock,
    )
    sweeps = Sweeps(adapters.sweeps, adapters.datasets, adapters.registry, around.signals, around.clock)
    return SweepServicer(sweeps), driver.run


def _importer(settings: TrainingSettings, store: ObjectStore, scratch: Path) -> DatasetImporter:
    sources = ImportSources(
        store,
        scratch,
        settings.import_roots,
        settings.import_locations,
        ArchiveLimits(total_bytes=settings.max_unpacked_bytes, entries=settings.max_archive_members),
    )
    limits = ImageLimits(size_bytes=settings.max_image_bytes, pixels=settings.max_image_pixels)
    return DatasetImporter(sources, store, scratch, limits, settings.concurrent_imports)


def _worker_layout(settings: TrainingSettings) -> WorkerLayout:
    return WorkerLayout(
        python=settings.worker_python,
        blob_url=settings.blob_url,
        cache_folder=settings.worker_cache_folder or settings.cache_folder / "worker",
        weights_folder=settings.weights_folder,
        weights_download=settings.weights_download,
        worker_restarts=settings.worker_restarts,
        cpus_per_worker=settings.cpus_per_worker,
    )


def _search(plan: SweepPlan) -> Search:
    # Optuna takes a second to import and most services never see a sweep.
    from enxerto.training.adapters.optuna_search import OptunaSearch  # noqa: PLC0415

    return OptunaSearch(plan)
