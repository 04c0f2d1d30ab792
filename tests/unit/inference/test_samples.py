"""What is kept for labelling while much happens at once."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from enxerto.inference.domain import (
    Deployment,
    DeploymentSpec,
    FeedbackRecord,
    Payload,
    PayloadKind,
    Prediction,
    Sample,
    SamplingPolicy,
    Timing,
)
from enxerto.inference.errors import StorageUnavailableError
from enxerto.inference.service.observation import Observed
from enxerto.inference.service.samples import Retention, Samples
from enxerto.kernel.names import DeploymentName, SampleName, VersionName, VersionReference
from enxerto.kernel.paging import PageRequest
from fakes.inference_world import CountingMeter, InMemoryDeploymentStore, InMemoryModelRegistry
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles

PETS, VERSION = DeploymentName("default", "pets"), VersionName("default", "pets", 1)
PICTURE = Payload(PayloadKind.ENCODED, (b"image",), 1)
NO_TIME = Timing(0, 0, 0, 0)


class SteppingClock:
    """A second later at every look."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 2, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


class UnhurriedSampleFiles(InMemorySampleFiles):
    """The first removal of an image takes so long that others get ahead."""

    _first_s = 0.1

    async def delete(self, name: SampleName) -> None:
        takes_s, self._first_s = self._first_s, 0.0
        await asyncio.sleep(takes_s)
        await super().delete(name)


class FailingQualityStore(InMemoryQualityStore):
    """Keeps a sample, or not, and says that it cannot be reached, while it is away."""

    away = False
    keeps = False

    async def add_sample(self, sample: Sample) -> None:
        if self.keeps or not self.away:
            await super().add_sample(sample)
        if self.away:
            raise StorageUnavailableError("away")


@dataclass
class Shelf:
    """The samples of one deployment, and what they stand on."""

    deployments: InMemoryDeploymentStore = field(default_factory=InMemoryDeploymentStore)
    store: FailingQualityStore = field(default_factory=FailingQualityStore)
    files: UnhurriedSampleFiles = field(default_factory=UnhurriedSampleFiles)
    clock: SteppingClock = field(default_factory=SteppingClock)

    def __post_init__(self) -> None:
        registry = InMemoryModelRegistry()
        self.version = registry.versions[registry.add(1)]
        self.samples = Samples(
            deployments=self.deployments,
            store=self.store,
            files=self.files,
            clock=self.clock,
            meter=CountingMeter(),
            retention=Retention(),
        )

    async def deploy(self) -> None:
        spec = DeploymentSpec(VersionReference("default", "pets", "1"))
        await self.deployments.create(Deployment.create(PETS, spec, VERSION, self.clock.now()), "")

    async def keep(self, most: int) -> None:
        await self.samples.set_policy(SamplingPolicy(PETS, most, uncertain_below=0.5))

    async def offer(self, images: int) -> None:
        for _ in range(images):
            said = Prediction(self.version, (), (), 1, NO_TIME, f"{1:016x}", self.clock.now())
            self.samples.offer(
                PETS, Payload(PayloadKind.ENCODED, (b"image",), 1), said, [Observed(0, 0.1, "cat", None)]
            )
            await self.samples.flush()

    async def count(self) -> int:
        return len((await self.samples.list(PETS, PageRequest(1000))).items)


@pytest.fixture
async def shelf() -> Shelf:
    made = Shelf()
    await made.deploy()
    return made


async def test_a_lower_limit_removes_no_more_than_it_says_while_images_come_in(shelf: Shelf) -> None:
    await shelf.keep(300)
    await shelf.offer(300)
    await asyncio.gather(shelf.keep(100), shelf.offer(5))
    assert await shelf.count() == len(shelf.files.contents) == 100


async def test_a_deployment_made_again_while_the_old_one_is_tidied_keeps_what_is_its_own(shelf: Shelf) -> None:
    await shelf.keep(20)
    await shelf.offer(20)
    await shelf.deployments.remove(PETS)
    tidying = asyncio.ensure_future(shelf.samples.tidy())
    await asyncio.sleep(0)
    await shelf.deploy()
    await shelf.keep(10)
    await shelf.store.put_feedback([FeedbackRecord(PETS, "1", 0, VERSION, "cat", "dog", True, shelf.clock.now())])
    await shelf.offer(1)
    await tidying
    assert (await shelf.samples.policy(PETS)).max_samples == 10
    assert await shelf.count() == 1
    assert len(await shelf.store.accuracies(PETS, datetime.min.replace(tzinfo=UTC))) == 1
    await shelf.offer(1)
    assert await shelf.count() == 2


async def test_a_policy_set_while_the_policies_are_read_holds(shelf: Shelf) -> None:
    read, go_on = shelf.store.policies, asyncio.Event()

    async def policies() -> object:
        found = await read()
        await go_on.wait()
        return found

    shelf.store.policies = policies  # type: ignore[assignment]
    tidying = asyncio.ensure_future(shelf.samples.tidy())
    await asyncio.sleep(0)
    setting = asyncio.ensure_future(shelf.keep(10))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(tidying, setting)
    await shelf.offer(1)
    assert await shelf.count() == 1


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "lost"])
async def test_what_was_written_by_half_is_removed(shelf: Shelf, keeps: bool) -> None:
    await shelf.keep(10)
    shelf.store.away, shelf.store.keeps = True, keeps
    with pytest.raises(StorageUnavailableError):
        await shelf.offer(1)
    shelf.store.away = False
    await shelf.samples.tidy()
    assert not shelf.files.contents
    assert not await shelf.count()
    await shelf.offer(1)
    assert await shelf.count() == 1
