"""Repeated requests of datasets."""

import asyncio

import pytest

from enxerto.kernel.errors import NotFoundError
from enxerto.kernel.names import DatasetName
from enxerto.training.domain import Dataset, UploadSource
from enxerto.training.ports import Idempotency
from enxerto.training.service import Datasets, Signals
from enxerto.vision.specs import Task
from fakes.training_stores import START, InMemoryDatasetStore, SteppingClock

NAME = DatasetName("default", "d")


class ClearedUploads:
    """An `Importer` whose source is there once."""

    def __init__(self):
        self._there = True

    async def check(self, project, source):
        if not self._there:
            raise NotFoundError("Upload", source.sha256)
        self._there = False


async def test_a_repeated_request_gets_its_snapshot_after_the_source_is_gone():
    store = InMemoryDatasetStore()
    await store.create_dataset(Dataset(name=NAME, task=Task.CLASSIFICATION, create_time=START, update_time=START))
    rules = {"max_archive_bytes": 1, "references": asyncio.Lock()}
    datasets = Datasets(store, None, ClearedUploads(), Signals(), SteppingClock(), **rules)
    first, source = Idempotency("r1", "f1"), UploadSource("0" * 64)
    snapshot = await datasets.create_snapshot(NAME, source, 0, first)
    assert await datasets.create_snapshot(NAME, source, 0, first) == snapshot
    with pytest.raises(NotFoundError):
        await datasets.create_snapshot(NAME, source, 0, Idempotency("r2", "f1"))
