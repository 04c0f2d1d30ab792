import asyncio

import pytest

from enxerto.kernel.errors import InvalidArgumentError, NotFoundError
from enxerto.kernel.names import DatasetName, ProjectName, SnapshotName
from enxerto.training.domain import Dataset, LogLine, PathSource, QueueRules, RunState
from enxerto.training.errors import (
    ModelTaskMismatchError,
    RequestIdReusedError,
    ServiceStoppingError,
    SnapshotNotReadyError,
)
from enxerto.training.ports import Idempotency
from enxerto.training.service import Queue, Runs, Signals
from enxerto.vision.specs import Task
from fakes.training_stores import (
    START,
    CountingTelemetry,
    InMemoryDatasetStore,
    InMemoryRegistry,
    InMemoryRunStore,
    ScriptedCluster,
    SteppingClock,
)
from fakes.training_values import a_run, some_content

PROJECT = ProjectName("default")
SPEC = a_run().spec


class Service:
    def __init__(self):
        self.store, self.datasets = InMemoryRunStore(), InMemoryDatasetStore()
        self.signals, self.telemetry = Signals(), CountingTelemetry()
        self.cluster, self.registry = ScriptedCluster(), InMemoryRegistry()
        self.runs = Runs(
            runs=self.store,
            datasets=self.datasets,
            registry=self.registry,
            output=self.cluster,
            queue=Queue(self.cluster, self.telemetry, QueueRules()),
            telemetry=self.telemetry,
            signals=self.signals,
            clock=SteppingClock(),
        )

    async def import_digits(self, *, ready=True):
        name = DatasetName("default", "digits")
        dataset = Dataset(name=name, task=Task.CLASSIFICATION, create_time=START, update_time=START)
        await self.datasets.create_dataset(dataset)
        snapshot = await self.datasets.create_snapshot(name, PathSource("/data"), 0, START)
        if ready:
            await self.datasets.save_snapshot(snapshot.ready(some_content(), (), now=START))

    async def create(self, run_id="", request=None, spec=SPEC):
        return await self.runs.create(PROJECT, run_id, spec, {}, request=request)


@pytest.fixture
def service():
    return Service()


async def test_a_run_without_an_id_is_named_by_the_service(service):
    await service.import_digits()
    one, two = await service.create(), await service.create()
    assert one.state is RunState.QUEUED
    assert one.name != two.name
    assert one.name.run.startswith("run-")


async def test_a_missing_snapshot_is_not_found_and_an_unfinished_one_is_refused(service):
    with pytest.raises(NotFoundError):
        await service.create()
    await service.import_digits(ready=False)
    with pytest.raises(SnapshotNotReadyError, match="IMPORTING"):
        await service.create()
    assert SPEC.snapshot == SnapshotName("default", "digits", 1)


async def test_a_model_of_another_task_is_refused_before_anything_is_trained(service):
    await service.import_digits()
    service.registry.tasks[SPEC.model] = Task.DETECTION
    with pytest.raises(ModelTaskMismatchError, match="is a model for DETECTION already"):
        await service.create()
    assert not await service.store.list_active()
    service.registry.tasks[SPEC.model] = Task.CLASSIFICATION
    assert (await service.create()).state is RunState.QUEUED


async def test_a_run_is_accepted_while_the_registry_is_away(service):
    await service.import_digits()
    service.registry.away = True
    assert (await service.create()).state is RunState.QUEUED


async def test_the_same_request_gives_the_same_run(service):
    await service.import_digits()
    first = await service.create(request=Idempotency("r", "f"))
    assert (await service.create(request=Idempotency("r", "f"))).uid == first.uid
    with pytest.raises(RequestIdReusedError):
        await service.create(request=Idempotency("r", "g"))


async def test_a_waiting_run_is_cancelled_at_once(service):
    await service.import_digits()
    run = await service.create()
    cancelled = await service.runs.cancel(run.name)
    assert cancelled.state is RunState.CANCELLED
    assert (await service.runs.cancel(run.name)).revision == cancelled.revision
    assert service.telemetry.ended == [RunState.CANCELLED]


async def log(service, name, *messages):
    run = await service.store.get(name)
    await service.store.save(run, [(START, LogLine("INFO", message)) for message in messages])
    service.signals.send(run.uid)


async def test_a_watcher_gets_what_was_and_what_comes_until_the_end(service):
    await service.import_digits()
    run = await service.create()
    await log(service, run.name, "a", "b")
    seen = []

    async def watch():
        async for event in service.runs.watch(run.name, 1):
            seen.append(event)

    watching = asyncio.create_task(watch())
    while len(seen) < 2:
        await asyncio.sleep(0)
    await log(service, run.name, "c")
    await service.runs.cancel(run.name)
    await asyncio.wait_for(watching, 5)
    assert [event.cursor for event in seen] == [2, 3, 4, 5]
    assert seen[-1].body.state is RunState.CANCELLED
    after_the_end = [event async for event in service.runs.watch(run.name, 5)]
    assert after_the_end == []


async def test_a_cursor_beyond_the_end_is_refused(service):
    await service.import_digits()
    run = await service.create()
    with pytest.raises(InvalidArgumentError, match="after_cursor"):
        await anext(service.runs.watch(run.name, 2))


async def test_a_watcher_is_let_go_when_the_service_drains(service):
    await service.import_digits()
    run = await service.create()
    watching = service.runs.watch(run.name, 1)
    waiting = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    service.signals.stop()
    with pytest.raises(ServiceStoppingError):
        await asyncio.wait_for(waiting, 5)
