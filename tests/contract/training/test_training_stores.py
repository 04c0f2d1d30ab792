"""The same suite for the in-memory twins and for SQL on SQLite and PostgreSQL."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from enxerto.kernel.errors import AlreadyExistsError, NotFoundError
from enxerto.kernel.names import DatasetName, ProjectName, RunName, SnapshotName, SweepName
from enxerto.kernel.paging import PageRequest
from enxerto.runtime.sql import create_engine, migrate
from enxerto.training.adapters.sql_datasets import SqlDatasetStore
from enxerto.training.adapters.sql_runs import SqlRunStore
from enxerto.training.adapters.sql_sweeps import SqlSweepStore
from enxerto.training.adapters.sql_weights import SqlWeightsCatalogue
from enxerto.training.adapters.tables import metadata
from enxerto.training.bootstrap import MIGRATIONS
from enxerto.training.domain import (
    Checkpoint,
    CheckpointSaved,
    Dataset,
    EpochCompleted,
    Finding,
    LogLine,
    Metric,
    PathSource,
    Progress,
    RunState,
    SnapshotState,
    UploadSource,
    UriSource,
)
from enxerto.training.errors import RequestIdReusedError, StaleRevisionError
from enxerto.training.ports import DatasetStore, Idempotency, ImportedWeights, RunStore, SweepStore, WeightsCatalogue
from enxerto.vision.datasets.statistics import ClassCount, DatasetStatistics, SizeBin
from enxerto.vision.specs import Task
from fakes.training_stores import (
    START,
    InMemoryDatasetStore,
    InMemoryRunStore,
    InMemorySweepStore,
    InMemoryWeights,
)
from fakes.training_values import a_result, a_run, a_sweep, some_content

PROJECT = ProjectName("default")
DIGITS = DatasetName("default", "digits")


@dataclass
class Stores:
    datasets: DatasetStore
    runs: RunStore
    sweeps: SweepStore
    weights: WeightsCatalogue


@contextlib.asynccontextmanager
async def database(backend: str, request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[AsyncEngine]:
    """A migrated, empty database."""
    server = request.getfixturevalue("postgres") if backend == "postgres" else None
    name = f"test_{uuid.uuid4().hex}"
    url = await server.create_database(name) if server else f"sqlite+aiosqlite:///{folder}/training.db"
    await migrate(url, MIGRATIONS)
    engine = create_engine(url)
    yield engine
    await engine.dispose()
    if server:
        await server.drop_database(name)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "memory":
        yield Stores(InMemoryDatasetStore(), InMemoryRunStore(), InMemorySweepStore(), InMemoryWeights())
        return
    async with database(request.param, request, tmp_path) as engine:
        yield Stores(SqlDatasetStore(engine), SqlRunStore(engine), SqlSweepStore(engine), SqlWeightsCatalogue(engine))


def a_dataset(name: DatasetName = DIGITS) -> Dataset:
    return Dataset(
        name=name,
        task=Task.CLASSIFICATION,
        display_name="Digits",
        labels={"a": "b"},
        create_time=START,
        update_time=START,
    )


async def test_a_dataset_comes_back_as_it_was(stores):
    await stores.datasets.create_dataset(a_dataset())
    assert await stores.datasets.get_dataset(DIGITS) == a_dataset()
    with pytest.raises(AlreadyExistsError):
        await stores.datasets.create_dataset(a_dataset())
    with pytest.raises(NotFoundError):
        await stores.datasets.get_dataset(DatasetName("default", "other"))


async def test_datasets_are_listed_by_name_within_their_project(stores):
    for project, dataset in (("default", "b"), ("default", "a"), ("other", "c"), ("default", "c")):
        await stores.datasets.create_dataset(a_dataset(DatasetName(project, dataset)))
    first = await stores.datasets.list_datasets(PROJECT, PageRequest(2))
    assert [one.name.dataset for one in first.items] == ["a", "b"]
    second = await stores.datasets.list_datasets(PROJECT, PageRequest(2, first.next_after))
    assert ([one.name.dataset for one in second.items], second.next_after) == (["c"], "")


async def test_snapshots_are_numbered_and_the_newest_ready_one_is_known(stores):
    await stores.datasets.create_dataset(a_dataset())
    one = await stores.datasets.create_snapshot(DIGITS, UriSource("s3://bucket/data"), 3, START)
    two = await stores.datasets.create_snapshot(DIGITS, UploadSource("ab" * 32), 0, START)
    three = await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START)
    assert [snapshot.name.number for snapshot in (one, two, three)] == [1, 2, 3]
    finding = Finding(True, "labels/1.txt", "UNKNOWN_CLASS", "is not in the list", 7)
    found = DatasetStatistics("COCO", 5, 9, (ClassCount("cat", (5, 3, 1)),), (SizeBin(64, 2), SizeBin(512, 3)))
    await stores.datasets.save_snapshot(two.ready(some_content(), (), now=START, statistics=found))
    await stores.datasets.save_snapshot(one.ready(some_content(), (), now=START))
    await stores.datasets.save_snapshot(three.fail(b"\x08\x03", (finding,), now=START, statistics=found))
    assert (await stores.datasets.get_dataset(DIGITS)).latest_ready == 2
    failed = await stores.datasets.get_snapshot(three.name)
    assert (failed.state, failed.error, failed.findings) == (SnapshotState.FAILED, b"\x08\x03", (finding,))
    ready = await stores.datasets.get_snapshot(two.name)
    assert (ready.statistics, failed.statistics) == (found, found)
    assert (await stores.datasets.get_snapshot(one.name)).statistics is None
    assert (await stores.datasets.get_snapshot(one.name)).source == UriSource("s3://bucket/data")
    assert (ready.content, ready.source, ready.create_time) == (some_content(), UploadSource("ab" * 32), START)
    assert await stores.datasets.list_importing() == []
    page = await stores.datasets.list_snapshots(DIGITS, PageRequest(2))
    assert [snapshot.name.number for snapshot in page.items] == [3, 2]
    rest = await stores.datasets.list_snapshots(DIGITS, PageRequest(2, page.next_after))
    assert [snapshot.name.number for snapshot in rest.items] == [1]


async def test_a_snapshot_that_changed_is_not_overwritten(stores):
    await stores.datasets.create_dataset(a_dataset())
    snapshot = await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START)
    assert [one.name for one in await stores.datasets.list_importing()] == [snapshot.name]
    await stores.datasets.save_snapshot(snapshot.ready(some_content(), (), now=START))
    with pytest.raises(StaleRevisionError):
        await stores.datasets.save_snapshot(snapshot.fail(b"", (), now=START))


async def test_what_is_missing_is_not_found(stores):
    with pytest.raises(NotFoundError):
        await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START)
    with pytest.raises(NotFoundError):
        await stores.datasets.list_snapshots(DIGITS, PageRequest())
    with pytest.raises(NotFoundError):
        await stores.datasets.get_snapshot(SnapshotName("default", "digits", 1))
    with pytest.raises(NotFoundError):
        await stores.runs.get(RunName("default", "run-x"))


async def test_a_request_id_makes_creation_repeatable(stores):
    request = Idempotency("r1", "f1")
    await stores.datasets.create_dataset(a_dataset(), request)
    assert (await stores.datasets.create_dataset(a_dataset(), request)).name == DIGITS
    with pytest.raises(RequestIdReusedError):
        await stores.datasets.create_dataset(a_dataset(), Idempotency("r1", "f2"))
    first = await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START, request)
    again = await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START, request)
    assert first.name == again.name
    assert await stores.datasets.find_snapshot(DIGITS, request) == first
    assert await stores.datasets.find_snapshot(DIGITS, Idempotency("r2", "f1")) is None
    with pytest.raises(RequestIdReusedError):
        await stores.datasets.find_snapshot(DIGITS, Idempotency("r1", "f2"))
    other = await stores.datasets.create_snapshot(DIGITS, PathSource("/data"), 0, START)
    assert other.name.number == 2
    run = await stores.runs.create(a_run(), request)
    assert (await stores.runs.create(a_run("run-b", "u2"), request)).uid == run.uid
    found = await stores.runs.find_request(PROJECT, request)
    assert found is not None
    assert found.uid == run.uid
    assert await stores.runs.find_request(PROJECT, Idempotency("r2", "f1")) is None


async def test_a_run_comes_back_as_it_was(stores):
    run = await stores.runs.create(a_run())
    assert await stores.runs.get(run.name) == run
    with pytest.raises(AlreadyExistsError):
        await stores.runs.create(a_run(uid="u2"))
    changed = (
        run.wait("CLUSTER_FULL", now=START)
        .attempt_next(now=START)
        .lose(now=START)
        .attempt_next(now=START, use_gpu=True)
        .accepted(now=START)
        .start(now=START)
        .advance(Progress("head", 1, 2, 3, 4, 5.0, None, 6, 7, 1e-3), log_seq=9, now=START)
        .saved(Checkpoint("head", 1, 77, START), now=START)
        .trained((Metric("accuracy", 0.5, "test"),), "EPOCHS", now=START)
        .fail(b"\x08\x0d", now=START, model_version="v")
    )
    saved = await stores.runs.save(changed)
    assert await stores.runs.get(run.name) == saved == replace(changed, revision=run.revision + 1)


async def test_events_have_cursors_without_gaps_and_belong_to_the_transition(stores):
    run = await stores.runs.create(a_run())
    epoch = EpochCompleted(Progress("head", 1, 2, 3, 4, 5.0, 6.0), (Metric("loss", 1.5, "val"),), 1e-3)
    saved = await stores.runs.save(
        run.attempt_next(now=START), [(START, LogLine("INFO", "hello")), (START, epoch), (START, epoch.progress)]
    )
    with pytest.raises(StaleRevisionError):
        await stores.runs.save(run, [(START, LogLine("INFO", "never"))])
    failed = saved.fail(b"\x08\x0d", now=START)
    await stores.runs.save(failed, [(START, failed.state_event())])
    events = await stores.runs.list_events(run.uid, 0, 100)
    assert [event.cursor for event in events] == [1, 2, 3, 4, 5]
    assert [event.body for event in events] == [
        run.state_event(),
        LogLine("INFO", "hello"),
        epoch,
        epoch.progress,
        failed.state_event(),
    ]
    assert [event.cursor for event in await stores.runs.list_events(run.uid, 2, 2)] == [3, 4]


async def test_writers_at_the_same_time_leave_no_gap(stores):
    run = await stores.runs.create(a_run())

    async def write(number: int) -> int:
        lost = 0
        while True:
            current = await stores.runs.get(run.name)
            try:
                await stores.runs.save(current, [(START, LogLine("INFO", str(number)))])
            except StaleRevisionError:
                lost += 1
                continue
            return lost

    await asyncio.gather(*(write(number) for number in range(8)))
    events = await stores.runs.list_events(run.uid, 1, 100)
    assert [event.cursor for event in events] == list(range(2, 10))
    assert {event.body.message for event in events} == {str(number) for number in range(8)}


async def test_runs_are_listed_newest_first_and_counted(stores):
    for number in range(3):
        await stores.runs.create(a_run(f"run-{number}", f"u{number}"))
    ended = (await stores.runs.get(RunName("default", "run-1"))).cancel(now=START)
    await stores.runs.save(ended, [(START, ended.state_event())])
    page = await stores.runs.list_runs(PROJECT, PageRequest(2))
    assert [run.name.run for run in page.items] == ["run-2", "run-1"]
    rest = await stores.runs.list_runs(PROJECT, PageRequest(2, page.next_after))
    assert ([run.name.run for run in rest.items], rest.next_after) == (["run-0"], "")
    assert [run.name.run for run in await stores.runs.list_active()] == ["run-0", "run-2"]
    assert await stores.runs.count_by_state() == {RunState.QUEUED: 2, RunState.CANCELLED: 1}


async def test_logs_of_runs_that_ended_are_listed_until_they_are_deleted(stores):
    for number in range(4):
        await stores.runs.create(a_run(f"run-{number}", f"u{number}"))
    for number in (0, 2, 3):
        run = await stores.runs.get(RunName("default", f"run-{number}"))
        await stores.runs.save(run.fail(b"", now=START + timedelta(hours=number)))
    before = START + timedelta(hours=3)
    assert list(await stores.runs.list_kept_logs(START, 10)) == []
    assert list(await stores.runs.list_kept_logs(before, 10)) == ["u0", "u2"]
    assert list(await stores.runs.list_kept_logs(before, 1)) == ["u0"]
    await stores.runs.note_deleted_log("u0")
    assert list(await stores.runs.list_kept_logs(before, 10)) == ["u2"]


async def test_a_run_keeps_its_files_its_sweep_and_what_it_waits_for(stores):
    run = replace(a_run(), sweep=SweepName("default", "better"))
    await stores.runs.create(run)
    waiting = await stores.runs.save(run.wait("PROJECT_QUOTA", now=START))
    assert await stores.runs.get(run.name) == waiting
    ended = (
        waiting.attempt_next(now=START).trained((), "EPOCHS", now=START).succeed("", a_result().artifacts, now=START)
    )
    saved = await stores.runs.save(ended, [(START, CheckpointSaved("head", 1, 77))])
    assert await stores.runs.get(run.name) == saved
    assert (await stores.runs.list_events(run.uid, 1, 9))[0].body == CheckpointSaved("head", 1, 77)


async def test_a_sweep_comes_back_as_it_was(stores):
    sweep = await stores.sweeps.create(a_sweep())
    assert await stores.sweeps.get(sweep.name) == sweep
    with pytest.raises(AlreadyExistsError):
        await stores.sweeps.create(replace(a_sweep(), uid="s2"))
    with pytest.raises(NotFoundError):
        await stores.sweeps.get(SweepName("default", "none"))
    begun = sweep.begin_trial({"learning_rate": "0.001", "optimizer": "OPTIMIZER_SGD"}, now=START)
    saved = await stores.sweeps.save(begun)
    assert await stores.sweeps.get(sweep.name) == saved == replace(begun, revision=2)
    with pytest.raises(StaleRevisionError):
        await stores.sweeps.save(sweep)
    assert await stores.sweeps.list_active() == [saved]
    done = replace(saved.trials[0], state=RunState.SUCCEEDED, score=0.5, pruned=True)
    ended = await stores.sweeps.save(saved.follow(done, now=START).succeed(now=START))
    assert await stores.sweeps.list_active() == []
    assert (await stores.sweeps.get(sweep.name)) == ended


async def test_sweeps_are_listed_newest_first_and_created_once_for_a_request(stores):
    request = Idempotency("r1", "f1")
    for number in range(3):
        one = replace(a_sweep(), name=SweepName("default", f"s-{number}"), uid=f"s{number}")
        await stores.sweeps.create(one, request if number == 0 else None)
    page = await stores.sweeps.list_sweeps(PROJECT, PageRequest(2))
    assert [one.name.sweep for one in page.items] == ["s-2", "s-1"]
    rest = await stores.sweeps.list_sweeps(PROJECT, PageRequest(2, page.next_after))
    assert ([one.name.sweep for one in rest.items], rest.next_after) == (["s-0"], "")
    assert (await stores.sweeps.find_request(PROJECT, request)).uid == "s0"
    assert (await stores.sweeps.create(replace(a_sweep(), uid="s9"), request)).uid == "s0"
    with pytest.raises(RequestIdReusedError):
        await stores.sweeps.find_request(PROJECT, Idempotency("r1", "f2"))


async def test_the_last_imported_weights_count(stores):
    assert await stores.weights.all() == {}
    await stores.weights.put(ImportedWeights("resnet18", "ab" * 32, 5, START))
    last = ImportedWeights("resnet18", "cd" * 32, 6, START)
    await stores.weights.put(last)
    assert await stores.weights.all() == {"resnet18": last}


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_the_migrations_make_the_tables_that_the_store_uses(backend, tmp_path, request):
    def columns(connection: Connection) -> dict[str, set[str]]:
        found = inspect(connection)
        return {table: {column["name"] for column in found.get_columns(table)} for table in metadata.tables}

    async with database(backend, request, tmp_path) as engine, engine.connect() as connection:
        made = await connection.run_sync(columns)
    assert made == {name: {column.name for column in table.columns} for name, table in metadata.tables.items()}
