"""One suite for every `ModelRegistry`: the one in memory, and the client of a registry that runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from enxerto.inference.adapters.registry_client import RegistryClient, open_channel
from enxerto.inference.domain import Meaning
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.inference.ports import ModelRegistry
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.registry.bootstrap import compose
from enxerto.registry.server import build_server
from enxerto.registry.settings import RegistrySettings
from enxerto.runtime.metrics import new_registry
from enxerto.vision.embeddings import REFERENCE_FILE, EmbeddingReference
from fakes.inference_world import InMemoryModelRegistry
from fakes.tiny_onnx import RegistryWriter, TinyModel


@dataclass
class Bench:
    """A registry and a way to write to it."""

    registry: ModelRegistry
    add: Callable[[bool], Awaitable[int]]
    point: Callable[[str, int], Awaitable[None]]
    add_file: Callable[[bytes], Awaitable[VersionName]]
    """A version with these bytes as its reference of embeddings."""


def in_memory() -> Bench:
    registry = InMemoryModelRegistry()
    numbers = iter(range(1, 100))

    async def add(quarantined: bool) -> int:
        name = registry.add(next(numbers))
        if quarantined:
            registry.quarantined.add(name)
        return name.number

    async def point(alias: str, number: int) -> None:
        registry.point(alias, next(name for name in registry.versions if name.number == number))

    async def add_file(content: bytes) -> VersionName:
        name = registry.add(next(numbers))
        with contextlib.suppress(ValueError):
            registry.references[name] = EmbeddingReference.from_json(content)
        return name

    return Bench(registry, add, point, add_file)


@pytest.fixture(params=["memory", "grpc"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield in_memory()
        return
    settings = RegistrySettings(home=tmp_path, drain_s=0)
    metrics = new_registry()
    async with compose(settings, metrics) as composition:
        server = build_server(settings, metrics, composition.registry)
        async with server.running(), open_channel(f"127.0.0.1:{server.port}", None) as channel:
            writer = RegistryWriter(f"127.0.0.1:{server.port}")
            model = await asyncio.to_thread(writer.create_model, "pets")

            async def add(quarantined: bool) -> int:
                agreement = 0.5 if quarantined else 1.0
                name = await asyncio.to_thread(writer.add_version, model, TinyModel(), agreement=agreement)
                return int(name.rpartition("/")[2])

            async def point(alias: str, number: int) -> None:
                await asyncio.to_thread(writer.point, model, alias, f"{model}/versions/{number}")

            async def add_file(content: bytes) -> VersionName:
                files = {REFERENCE_FILE: content}
                return VersionName.parse(await asyncio.to_thread(writer.add_version, model, TinyModel(), files=files))

            yield Bench(RegistryClient(channel), add, point, add_file)
            writer.close()


def reference(version: str, model: str = "pets") -> VersionReference:
    return VersionReference("default", model, version)


async def test_the_reference_of_embeddings_is_the_versions_own(bench: Bench) -> None:
    kept = EmbeddingReference(9, np.array([1.0, 2.0]), np.array([0.5, 0.0]), 0.25)
    found = await bench.registry.embedding_reference(await bench.add_file(kept.to_json().encode()))
    assert found is not None
    assert (found.count, found.held_out_drift, found.to_json()) == (9, 0.25, kept.to_json())
    assert await bench.registry.embedding_reference(await bench.add_file(b"something else")) is None
    without = await bench.add(False)
    assert await bench.registry.embedding_reference(VersionName("default", "pets", without)) is None


async def test_a_number_and_an_alias_mean_the_same_version(bench: Bench) -> None:
    first, second = await bench.add(False), await bench.add(False)
    await bench.point("production", first)
    by_alias = await bench.registry.resolve(reference("production"))
    assert by_alias == await bench.registry.resolve(reference(str(first)))
    assert by_alias.name.number == first
    assert by_alias.labels
    assert by_alias.height == by_alias.width > 0
    await bench.point("production", second)
    assert (await bench.registry.resolve(reference("production"))).name.number == second


@pytest.mark.parametrize(("version", "model"), [("7", "pets"), ("staging", "pets"), ("1", "other")])
async def test_what_is_missing_is_not_found(bench: Bench, version: str, model: str) -> None:
    await bench.add(False)
    with pytest.raises(VersionNotFoundError):
        await bench.registry.resolve(reference(version, model))


async def test_what_is_quarantined_is_not_servable(bench: Bench) -> None:
    number = await bench.add(True)
    with pytest.raises(VersionNotServableError):
        await bench.registry.resolve(reference(str(number)))


async def test_the_classes_of_a_version_are_known_whether_or_not_it_is_servable(bench: Bench) -> None:
    good, bad = [VersionName("default", "pets", await bench.add(quarantined)) for quarantined in (False, True)]
    labels = (await bench.registry.resolve(reference(str(good.number)))).labels
    assert await bench.registry.labels(good) == await bench.registry.labels(bad) == labels
    with pytest.raises(VersionNotFoundError):
        await bench.registry.labels(VersionName("default", "pets", 7))


async def test_the_meanings_of_many_references_are_told_at_once(bench: Bench) -> None:
    first, bad = await bench.add(False), await bench.add(True)
    await bench.point("production", first)
    names = {number: VersionName("default", "pets", number) for number in (first, bad)}
    alias, numbers = reference("production"), [reference(str(number)) for number in (first, bad)]
    found = await bench.registry.meanings([alias, *numbers, reference("staging"), reference("7"), reference("1", "x")])
    ready = Meaning(names[first], ready=True)
    assert found == {alias: ready, numbers[0]: ready, numbers[1]: Meaning(names[bad], ready=False)}
    second = await bench.add(False)
    await bench.point("production", second)
    many = [reference(f"alias-{index}") for index in range(1000)]
    found = await bench.registry.meanings([*many, alias])
    assert found == {alias: Meaning(VersionName("default", "pets", second), ready=True)}


async def test_a_registry_that_is_away_says_so() -> None:
    async with open_channel("127.0.0.1:1", None) as channel:
        client = RegistryClient(channel)
        for ask in (client.resolve(reference("1")), client.meanings([reference("1")])):
            with pytest.raises(RegistryUnavailableError) as refusal:
                await ask
            assert refusal.value.retry_after_s > 0
