"""The composition root: the only room that names concrete adapters."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from enxerto.kernel.clock import SystemClock
from enxerto.registry.adapters.metrics import PrometheusMeter
from enxerto.registry.adapters.object_store import ObjectBlobStore, open_blob_store
from enxerto.registry.adapters.sql_store import open_metadata_store
from enxerto.registry.server import serve
from enxerto.registry.service import Registry
from enxerto.registry.settings import RegistrySettings
from enxerto.runtime.metrics import new_registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Composition:
    """The wired registry."""

    registry: Registry
    blobs: ObjectBlobStore


@asynccontextmanager
async def compose(settings: RegistrySettings, metrics: CollectorRegistry) -> AsyncIterator[Composition]:
    """Open the stores, clean up after a killed process, and wire the registry; closes the stores at the end.

    Raises:
        StartupError: a store cannot be opened.
    """
    blobs = open_blob_store(
        settings.effective_blob_url,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )
    await blobs.sweep(settings.stale_upload_s)
    async with open_metadata_store(settings.effective_database_url) as metadata:
        registry = Registry(
            metadata,
            blobs,
            SystemClock(),
            PrometheusMeter(metrics),
            max_blob_bytes=settings.max_blob_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        yield Composition(registry, blobs)


async def run(settings: RegistrySettings) -> None:
    """Run the service until it is told to stop."""
    metrics = new_registry()
    async with compose(settings, metrics) as composition:
        sweep = partial(_sweep_for_ever, composition.blobs, settings.stale_upload_s)
        await serve(settings, metrics, composition.registry, background=[sweep])


async def _sweep_for_ever(blobs: ObjectBlobStore, stale_upload_s: float) -> None:
    while True:
        await asyncio.sleep(max(stale_upload_s, 60.0))
        if removed := await blobs.sweep(stale_upload_s):
            logger.info("half-written blobs removed", extra={"files": removed})
