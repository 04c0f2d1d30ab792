"""The inference service over a world in memory, one tick at a time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from enxerto.inference.bootstrap import wire
from enxerto.inference.domain import Deployment, DeploymentSpec, Payload, PayloadKind, State
from enxerto.inference.server import UseCases
from enxerto.inference.service import SpecChange
from enxerto.inference.settings import InferenceSettings
from enxerto.kernel.names import DeploymentName, VersionReference
from fakes.inference_world import (
    LABELS,
    CountingMeter,
    InMemoryCluster,
    InMemoryDeploymentStore,
    InMemoryModelRegistry,
    InMemoryReplicas,
)
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles

NAME = DeploymentName("default", "pets")


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Everything that outlives the front."""

    def __init__(self, bring_up_s: float = 0.2, pool_replicas: int = 1, **settings: Any) -> None:
        self.bring_up_s = bring_up_s
        self.settings = settings
        self.pool_replicas = pool_replicas
        self.store = InMemoryDeploymentStore()
        self.registry = InMemoryModelRegistry()
        self.cluster = InMemoryCluster()
        self.replicas = InMemoryReplicas()
        self.meter = CountingMeter()
        self.front = self.start()

    def start(self) -> UseCases:
        """A front without memory; the old one is forgotten."""
        settings = InferenceSettings(
            replica_secret_file="/unused",
            bring_up_s=self.bring_up_s,
            database_url="unused",
            shadow_report_s=0,
            pool_replicas=self.pool_replicas,
            **self.settings,
        )
        self.front = wire(
            settings,
            store=self.store,
            registry=self.registry,
            cluster=self.cluster,
            replicas=self.replicas,
            quality=InMemoryQualityStore(),
            sample_files=InMemorySampleFiles(),
            clock=FixedClock(),
            meter=self.meter,
        )
        return self.front

    async def tick(self, count: int = 3) -> None:
        for _ in range(count):
            await self.front.reconciler.tick()
            await asyncio.sleep(0.001)

    async def until(self, so: Callable[[], Awaitable[bool]]) -> None:
        """Tick until something is so: trials use threads, and last for more than a few ticks now and then."""
        async with asyncio.timeout(20):
            while not await so():
                await self.tick(1)

    async def deploy(self, reference: VersionReference, replicas: int = 1, **spec: Any) -> None:
        await self.front.deployments.create(NAME, DeploymentSpec(reference, replicas, **spec), "")
        await self.tick()

    async def update(self, **change: Any) -> None:
        await self.front.deployments.update(NAME, SpecChange(**change), "")
        await self.tick()

    async def deployment(self) -> Deployment:
        return await self.store.get(NAME)

    async def answer(self, image: bytes = b"x", **options: Any) -> int:
        """The number of the version that answers an image."""
        return await answer(self.front, image, **options)

    async def shares(self, count: int = 1000) -> dict[int, float]:
        """Share of every version in so many answers."""
        counts = Counter([await self.answer() for _ in range(count)])
        return {number: answered / count for number, answered in counts.items()}

    async def state(self) -> State:
        return (await self.store.get(NAME)).state


async def answer(front: UseCases, *images: bytes, timeout_s: float = 5.0, **options: Any) -> int:
    payload = Payload(PayloadKind.ENCODED, images, len(images))
    prediction = await front.predictions.answer(NAME, payload, "images[{}].content", timeout_s, **options)
    rows = np.frombuffer(prediction.tensors[0].content, "<f4").reshape(-1, len(LABELS))
    assert rows[0, 0] == prediction.version.name.number
    return prediction.version.name.number
