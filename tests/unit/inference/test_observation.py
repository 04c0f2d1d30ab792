"""Which answers are looked at, and what is remembered of them."""

import asyncio
from dataclasses import replace

import numpy as np

from enxerto.inference.domain import MAX_TRAFFIC_TARGETS
from enxerto.inference.service.observation import ObservationLimits, Observer
from enxerto.kernel.names import DeploymentName, VersionName
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.embeddings import EmbeddingReference
from enxerto.vision.specs import TensorSpec
from fakes.inference_world import CountingMeter, InMemoryModelRegistry

PETS = DeploymentName("default", "pets")


class CountingRegistry(InMemoryModelRegistry):
    """Remembers whose reference was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[VersionName] = []

    async def embedding_reference(self, name: VersionName) -> EmbeddingReference | None:
        self.asked.append(name)
        return await super().embedding_reference(name)


def observer(registry: InMemoryModelRegistry, images_per_s: float) -> Observer:
    return Observer(registry, CountingMeter(), ObservationLimits(images_per_s), lambda *_: None)


async def test_less_than_an_image_a_second_is_some() -> None:
    registry = InMemoryModelRegistry()
    version, rare = registry.versions[registry.add(1)], observer(registry, 0.5)
    assert [rare.wants(PETS, version, 1) for _ in range(3)] == [True, False, False]
    assert not observer(registry, 0.0).wants(PETS, version, 1)


async def test_as_many_versions_as_may_answer_are_remembered() -> None:
    registry = CountingRegistry()
    names = [registry.add(number) for number in range(1, MAX_TRAFFIC_TARGETS + 3)]
    embedding = TensorSpec(EMBEDDING.name, "FP32", (-1, 2))
    for name in names:
        version = registry.versions[name]
        registry.versions[name] = replace(version, outputs=(*version.outputs, embedding))
        registry.references[name] = EmbeddingReference(10, np.zeros(2), np.ones(2), 0.1)
    watching = observer(registry, 10.0)
    for _ in range(3):
        for name in names:
            assert watching.wants(PETS, registry.versions[name], 1)
        await asyncio.sleep(0)
    assert registry.asked == names
