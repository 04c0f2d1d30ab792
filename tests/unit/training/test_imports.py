"""The loop that imports: whatever one import meets, the others go on, and what was imported is kept."""

import asyncio
import contextlib
import logging

import pytest

from enxerto.kernel.errors import DataLossError, UnavailableError, Violation
from enxerto.kernel.names import DatasetName
from enxerto.training.adapters.status import decode_status, encode_status
from enxerto.training.domain import Dataset, PathSource, SnapshotState
from enxerto.training.errors import DiskFullError, SourceRefusedError
from enxerto.training.ports import Imported, ImportRefusedError
from enxerto.training.service import Imports, Signals
from enxerto.vision.datasets.statistics import summarise
from enxerto.vision.specs import Task
from fakes.training_stores import START, CountingTelemetry, InMemoryDatasetStore, SteppingClock
from fakes.training_values import some_content

NAME = DatasetName("default", "d")
IMPORTED = Imported(some_content(), (), summarise("CSV", ("a", "b"), ()))
REFUSED = ImportRefusedError(SourceRefusedError([Violation("caf\udce9.png", "CORRUPT_IMAGE")]), ())


class ScriptedImporter:
    """An `Importer` that meets what each path of a source is scripted for, one after the other."""

    def __init__(self, **script):
        self._script = script
        self.runs = 0

    async def run(self, snapshot, task):
        self.runs += 1
        met = self._script[snapshot.source.path].pop(0)
        if isinstance(met, Exception):
            raise met
        return met


class FailingStore(InMemoryDatasetStore):
    """A `DatasetStore` that first fails to save."""

    def __init__(self, *failures):
        super().__init__()
        self._failures = list(failures)

    async def save_snapshot(self, snapshot):
        if self._failures:
            raise self._failures.pop(0)
        return await super().save_snapshot(snapshot)


async def run_until_ended(store, importer, *paths):
    """The snapshots of sources, once the loop has ended them all."""
    await store.create_dataset(Dataset(name=NAME, task=Task.CLASSIFICATION, create_time=START, update_time=START))
    names = [(await store.create_snapshot(NAME, PathSource(path), 0, START)).name for path in paths]
    imports = Imports(
        store=store,
        importer=importer,
        encode=encode_status,
        telemetry=CountingTelemetry(),
        signals=Signals(),
        clock=SteppingClock(),
        retry_s=0.0,
    )
    loop = asyncio.create_task(imports.run())
    async with asyncio.timeout(5):
        while await store.list_importing() and not loop.done():
            await asyncio.sleep(0)
    assert not loop.done()
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    return [await store.get_snapshot(name) for name in names]


@pytest.mark.parametrize("failure", [REFUSED, RuntimeError("a fault of ours"), DataLossError("caf\udce9.png")])
async def test_an_import_that_fails_in_any_way_ends_no_other(failure, caplog):
    # pytest-xdist cannot pass on a log with such a name in it.
    caplog.set_level(logging.CRITICAL)
    importer = ScriptedImporter(bad=[failure], good=[IMPORTED])
    bad, good = await run_until_ended(InMemoryDatasetStore(), importer, "bad", "good")
    assert (bad.state, good.state) == (SnapshotState.FAILED, SnapshotState.READY)
    assert decode_status(bad.error).reason == "DATA_LOSS"


async def test_an_outcome_is_kept_until_it_can_be_stored():
    away = UnavailableError("the database is away")
    importer = ScriptedImporter(good=[IMPORTED])
    (snapshot,) = await run_until_ended(FailingStore(away, away), importer, "good")
    assert (snapshot.state, importer.runs) == (SnapshotState.READY, 1)


async def test_an_outcome_that_cannot_be_stored_is_a_failure():
    importer = ScriptedImporter(good=[IMPORTED])
    (snapshot,) = await run_until_ended(FailingStore(ValueError("no text")), importer, "good")
    assert snapshot.state is SnapshotState.FAILED


async def test_an_import_waits_for_a_store_that_is_away_and_not_for_a_full_disk(tmp_path):
    away, full = UnavailableError("the blob store is away"), DiskFullError(tmp_path)
    importer = ScriptedImporter(patient=[away, IMPORTED], full=[full, IMPORTED])
    patient, failed = await run_until_ended(InMemoryDatasetStore(), importer, "patient", "full")
    assert (patient.state, failed.state) == (SnapshotState.READY, SnapshotState.FAILED)
    assert decode_status(failed.error).reason == "DISK_FULL"
