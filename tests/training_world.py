"""The training service's world in memory, for unit tests of what drives runs."""

from enxerto.kernel.names import DatasetName
from enxerto.training.adapters.status import encode_status
from enxerto.training.domain import Dataset, PathSource, QueueRules, StateChanged
from enxerto.training.service import Queue, Reconciler, Runs, Signals, WeightsSupply
from enxerto.vision.specs import Task
from fakes.training_stores import (
    START,
    CountingTelemetry,
    InMemoryDatasetStore,
    InMemoryRegistry,
    InMemoryRunStore,
    InMemoryWeights,
    ScriptedCluster,
    SteppingClock,
)
from fakes.training_values import a_run, some_content


class World:
    """Everything that outlives a crash of the service."""

    def __init__(self):
        self.runs, self.datasets = InMemoryRunStore(), InMemoryDatasetStore()
        self.cluster, self.registry, self.telemetry = ScriptedCluster(), InMemoryRegistry(), CountingTelemetry()
        self.imported = InMemoryWeights()
        self.name = a_run().name
        self.cases = Runs(
            runs=self.runs,
            datasets=self.datasets,
            registry=self.registry,
            output=self.cluster,
            queue=Queue(self.cluster, self.telemetry, QueueRules()),
            telemetry=self.telemetry,
            signals=Signals(),
            clock=SteppingClock(),
        )

    def reconciler(self, **changed):
        rules = changed.pop("rules", QueueRules())
        parts = {
            "queue": Queue(self.cluster, self.telemetry, rules),
            "weights": WeightsSupply(self.imported, self.imported),
            "runs": self.runs,
            "datasets": self.datasets,
            "jobs": self.cluster,
            "output": self.cluster,
            "registry": self.registry,
            "encode": encode_status,
            "telemetry": self.telemetry,
            "signals": Signals(),
            "clock": SteppingClock(),
            "poll_s": 0.0,
        }
        return Reconciler(**{**parts, **changed})

    async def run(self):
        return await self.runs.get(self.name)

    async def events(self):
        run = await self.run()
        events = await self.runs.list_events(run.uid, 0, 1000)
        assert [event.cursor for event in events] == list(range(1, len(events) + 1))
        return [event.body for event in events]

    async def states(self):
        return [body.state for body in await self.events() if isinstance(body, StateChanged)]


async def a_world():
    """With one run that was just accepted."""
    world = World()
    dataset = DatasetName("default", "digits")
    await world.datasets.create_dataset(
        Dataset(name=dataset, task=Task.CLASSIFICATION, create_time=START, update_time=START)
    )
    snapshot = await world.datasets.create_snapshot(dataset, PathSource("/data"), 0, START)
    await world.datasets.save_snapshot(snapshot.ready(some_content(), (), now=START))
    await world.runs.create(a_run())
    return world


async def finish(world, reconciler):
    for _ in range(10):
        if await reconciler.step() == 0:
            return
    raise AssertionError("the run does not end")
