"""Housekeeping and what refers to an archive."""

import asyncio
import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore

from enxerto.kernel.clock import SystemClock
from enxerto.kernel.errors import UnavailableError
from enxerto.kernel.names import DatasetName, RunName
from enxerto.training.adapters.leftovers import StoredLeftovers
from enxerto.training.adapters.object_store import event_key, upload_key
from enxerto.training.domain import Dataset, UploadSource
from enxerto.training.service import Housekeeping
from enxerto.vision.specs import Task
from fakes.training_stores import START, InMemoryDatasetStore, InMemoryRunStore
from fakes.training_values import a_run

NOW = datetime.now(UTC)
AWAITED, FREE = (hashlib.sha256(name).hexdigest() for name in (b"awaited", b"free"))


class Later(SystemClock):
    """A month on."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=30)


class Unreachable(StoredLeftovers):
    """A blob store that is away."""

    async def old_uploads(self, before):
        raise UnavailableError("away", retry_after_s=1.0)


@pytest.fixture
async def datasets():
    store = InMemoryDatasetStore()
    name = DatasetName("default", "d")
    await store.create_dataset(
        Dataset(name=name, task=Task.CLASSIFICATION, display_name="", labels={}, create_time=NOW, update_time=NOW)
    )
    await store.create_snapshot(name, UploadSource(AWAITED), 0, NOW)
    return store


async def test_an_archive_that_an_import_waits_for_stays_however_old(datasets, tmp_path):
    store = LocalStore(str(tmp_path))
    keys = [upload_key("default", AWAITED), upload_key("default", FREE), upload_key("other", AWAITED)]
    for key in keys:
        obstore.put(store, key, b"archive")
    references = asyncio.Lock()
    rules = {"keep_s": 86_400.0, "references": references}
    leftovers = StoredLeftovers(store, tmp_path / "scratch")
    await Housekeeping(datasets, InMemoryRunStore(), leftovers, SystemClock(), **rules).step()
    assert len(list(tmp_path.rglob("uploads/*/*"))) == 3
    async with references:
        stepping = asyncio.create_task(Housekeeping(datasets, InMemoryRunStore(), leftovers, Later(), **rules).step())
        done, _ = await asyncio.wait([stepping], timeout=0.2)
        assert not done, "nothing is deleted while a snapshot is being created"
    await stepping
    assert [path.name for path in tmp_path.rglob("uploads/*/*")] == [AWAITED]
    assert (tmp_path / upload_key("default", AWAITED)).exists()
    await Housekeeping(datasets, InMemoryRunStore(), Unreachable(store, tmp_path), Later(), **rules).step()


async def test_the_logs_of_runs_that_ended_long_ago_are_cleared_and_others_stay(datasets, tmp_path):
    store, runs = LocalStore(str(tmp_path)), InMemoryRunStore()
    rules = {"keep_s": 86_400.0, "references": asyncio.Lock()}
    for uid in ("ended", "just-ended", "runs"):
        await runs.create(a_run(uid, uid))
        obstore.put(store, event_key(uid, 1, 1), b"{}")
    for uid, end in (("ended", START), ("just-ended", NOW)):
        await runs.save((await runs.get(RunName("default", uid))).fail(b"", now=end))
    housekeeping = Housekeeping(datasets, runs, StoredLeftovers(store, tmp_path / "scratch"), SystemClock(), **rules)
    await housekeeping.step()
    assert {path.parts[-4] for path in tmp_path.rglob("runs/*/events/*/*")} == {"just-ended", "runs"}
    assert await runs.list_kept_logs(NOW, 10) == []


async def test_a_folder_that_goes_away_while_it_is_looked_at_is_in_use(tmp_path, monkeypatch):
    folder = tmp_path / "scratch" / "import-1"
    (folder / "unpacked").mkdir(parents=True)
    lstat = Path.lstat

    def gone(path):
        shutil.rmtree(folder, ignore_errors=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", gone)
    leftovers = StoredLeftovers(LocalStore(str(tmp_path)), tmp_path / "scratch")
    assert await leftovers.clear_scratch(NOW + timedelta(days=30)) == 0
