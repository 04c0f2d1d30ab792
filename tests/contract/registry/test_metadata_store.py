"""What every `MetadataStore` promises: the fake, SQLite and PostgreSQL."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enxerto.kernel.names import ModelName, ProjectName, VersionName
from enxerto.kernel.paging import PageRequest
from enxerto.registry.adapters.sql_store import open_metadata_store
from enxerto.registry.domain import (
    Artifact,
    Blob,
    Lineage,
    Metric,
    Model,
    ModelContent,
    Parity,
    Request,
    Role,
    State,
    VersionContent,
)
from enxerto.registry.errors import (
    ModelChangedError,
    ModelExistsError,
    ModelNotFoundError,
    RequestIdReusedError,
    VersionNotFoundError,
)
from enxerto.registry.ports import MetadataStore
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task, TensorSpec
from fakes.registry_stores import InMemoryMetadataStore

PROJECT = ProjectName("default")
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CONTENT = VersionContent(
    artifacts=(Artifact("model.onnx", Role.MODEL, "a" * 64, "application/onnx", 5_000_000_000),),
    label_map=LabelMap(("cat", "dog", "pomba-galega", "鳥")),
    preprocess=PreprocessSpec(224, 192, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.5, 0.5)),
    inputs=(TensorSpec("images", "FP32", (-1, 3, 224, 192)),),
    outputs=(TensorSpec("probabilities", "FP32", (-1, 4)),),
    lineage=Lineage(snapshot="projects/default/datasets/d/snapshots/1", licence="Apache-2.0"),
    metrics=(Metric("accuracy", 0.1 + 0.2, "test"),),
    parity=Parity(1e-7, 1.0, 12, (1, 2, 8)),
    labels={"team": "vision"},
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return ""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/folder/db.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(url: str) -> AsyncIterator[MetadataStore]:
    if not url:
        yield InMemoryMetadataStore()
        return
    async with open_metadata_store(url) as opened:
        yield opened


def new_model(model_id: str = "pets") -> Model:
    content = ModelContent(Task.CLASSIFICATION, "Pets", "Which pet?", {"team": "vision"})
    return Model.create(ModelName("default", model_id), content, NOW)


def the_request(identity: str, fingerprint: str = "f") -> Request:
    return Request(identity, fingerprint)


async def test_a_model_is_read_as_it_was_written(store: MetadataStore) -> None:
    model = new_model()
    assert await store.create_model(model, None) == model
    assert await store.get_model(model.name) == model
    assert (await store.get_model(model.name)).etag == model.etag


async def test_a_second_model_of_the_same_name_is_refused(store: MetadataStore) -> None:
    await store.create_model(new_model(), None)
    with pytest.raises(ModelExistsError):
        await store.create_model(new_model(), None)
    with pytest.raises(ModelExistsError):
        await store.create_model(new_model(), the_request("r1"))
    await store.create_model(dataclasses.replace(new_model(), name=ModelName("other", "pets")), None)


async def test_missing_things_are_named(store: MetadataStore) -> None:
    with pytest.raises(ModelNotFoundError):
        await store.get_model(ModelName("default", "none"))
    with pytest.raises(ModelNotFoundError):
        await store.list_versions(ModelName("default", "none"), PageRequest())
    with pytest.raises(ModelNotFoundError):
        await store.update_model(ModelName("default", "none"), lambda model: model)
    with pytest.raises(ModelNotFoundError):
        await store.create_version(ModelName("default", "none"), CONTENT, NOW, None)
    await store.create_model(new_model(), None)
    with pytest.raises(VersionNotFoundError):
        await store.get_version(VersionName("default", "pets", 1))


async def test_a_repeated_request_gets_the_first_answer(store: MetadataStore) -> None:
    request = the_request("r1")
    first = await store.create_model(new_model(), request)
    later = dataclasses.replace(new_model(), create_time=NOW + timedelta(hours=1))
    assert await store.create_model(later, request) == first
    with pytest.raises(RequestIdReusedError):
        await store.create_model(new_model("other"), the_request("r1", "g"))
    with pytest.raises(ModelNotFoundError):
        await store.get_model(ModelName("default", "other"))

    version, created = await store.create_version(first.name, CONTENT, NOW, request)
    assert created
    again, created = await store.create_version(first.name, CONTENT, NOW + timedelta(1), request)
    assert not created
    assert again == version
    with pytest.raises(RequestIdReusedError):
        await store.create_version(first.name, CONTENT, NOW, the_request("r1", "g"))
    assert (await store.get_model(first.name)).latest == 1


async def test_the_same_request_at_the_same_moment_makes_one_thing(store: MetadataStore) -> None:
    answers = await asyncio.gather(*(store.create_model(new_model(), the_request("r1")) for _ in range(8)))
    assert len({answer.etag for answer in answers}) == 1
    name = new_model().name
    made = await asyncio.gather(*(store.create_version(name, CONTENT, NOW, the_request("r2")) for _ in range(8)))
    assert sum(created for _, created in made) == 1
    assert {version.name.number for version, _ in made} == {1}


async def test_the_same_request_id_for_two_models_at_once_is_refused_for_one(store: MetadataStore) -> None:
    await store.create_model(new_model("a"), None)
    await store.create_model(new_model("b"), None)
    outcomes = await asyncio.gather(
        store.create_version(ModelName("default", "a"), CONTENT, NOW, the_request("r", "a")),
        store.create_version(ModelName("default", "b"), CONTENT, NOW, the_request("r", "b")),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RequestIdReusedError", "tuple"]


async def test_a_version_is_read_as_it_was_written(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    version, _ = await store.create_version(model.name, CONTENT, NOW, None)
    assert version.name == VersionName("default", "pets", 1)
    assert version.state is State.READY
    assert await store.get_version(version.name) == version
    bare = dataclasses.replace(CONTENT, metrics=(), parity=None, labels={})
    version, _ = await store.create_version(model.name, bare, NOW, None)
    assert (await store.get_version(version.name)).content == bare


async def test_numbers_have_no_gaps_when_many_create_at_once(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    made = await asyncio.gather(*(store.create_version(model.name, CONTENT, NOW, None) for _ in range(20)))
    assert sorted(version.name.number for version, _ in made) == list(range(1, 21))
    assert (await store.get_model(model.name)).latest == 20


async def test_a_new_version_keeps_the_etag(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    await store.create_version(model.name, CONTENT, NOW, None)
    assert (await store.get_model(model.name)).etag == model.etag


async def test_many_are_found_at_once_and_the_missing_are_left_out(store: MetadataStore) -> None:
    pets = await store.create_model(new_model("pets"), None)
    other = await store.create_model(dataclasses.replace(new_model(), name=ModelName("other", "pets")), None)
    bad = dataclasses.replace(CONTENT, parity=Parity(1.0, 0.5, 12, (1,)))
    first, _ = await store.create_version(pets.name, CONTENT, NOW, None)
    second, _ = await store.create_version(pets.name, bad, NOW, None)
    third, _ = await store.create_version(other.name, CONTENT, NOW, None)
    models = await store.find_models({pets.name, other.name, ModelName("default", "none"), ModelName("none", "pets")})
    assert models == {name: await store.get_model(name) for name in (pets.name, other.name)}
    states = await store.find_states(
        {first.name, second.name, third.name, VersionName("other", "pets", 2), VersionName("none", "pets", 1)}
    )
    assert states == {first.name: State.READY, second.name: State.QUARANTINED, third.name: State.READY}
    assert await store.find_models([]) == await store.find_states([]) == {}


async def test_a_thousand_are_found_at_once(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    version, _ = await store.create_version(model.name, CONTENT, NOW, None)
    names = [ModelName("default", f"model-{index}") for index in range(999)]
    assert list(await store.find_models([*names, model.name])) == [model.name]
    assert await store.find_states([*(VersionName("default", name.model, 7) for name in names), version.name]) == {
        version.name: State.READY
    }


async def test_models_are_listed_by_name_page_by_page(store: MetadataStore) -> None:
    # Bytes decide: a dictionary's order would skip the hyphen.
    names = ["a", "a-b", "a-c", "ab", "b", "zz"]
    for model_id in reversed(names):
        await store.create_model(new_model(model_id), None)
    await store.create_model(dataclasses.replace(new_model(), name=ModelName("other", "x")), None)
    seen, after = [], ""
    while True:
        page = await store.list_models(PROJECT, PageRequest(size=2, after=after))
        assert len(page.items) <= 2
        seen += [model.name.model for model in page.items]
        if not (after := page.next_after):
            break
    assert seen == names
    assert (await store.list_models(ProjectName("empty"), PageRequest())).items == []


async def test_versions_are_listed_newest_first_page_by_page(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    assert (await store.list_versions(model.name, PageRequest())).items == []
    for _ in range(12):
        await store.create_version(model.name, CONTENT, NOW, None)
    first = await store.list_versions(model.name, PageRequest(size=7))
    await store.create_version(model.name, CONTENT, NOW, None)
    second = await store.list_versions(model.name, PageRequest(size=7, after=first.next_after))
    assert [version.name.number for version in first.items] == [12, 11, 10, 9, 8, 7, 6]
    assert [version.name.number for version in second.items] == [5, 4, 3, 2, 1]
    assert not second.next_after


async def test_an_update_that_is_refused_changes_nothing(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    version, _ = await store.create_version(model.name, CONTENT, NOW, None)
    moved = await store.update_model(
        model.name, lambda current: current.with_alias("production", version, etag=model.etag, now=NOW)
    )
    assert moved.aliases == {"production": 1}
    assert moved.etag != model.etag
    with pytest.raises(ModelChangedError):
        await store.update_model(
            model.name, lambda current: current.without_alias("production", etag=model.etag, now=NOW)
        )
    assert await store.get_model(model.name) == moved


async def test_updates_at_once_lose_nothing(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    version, _ = await store.create_version(model.name, CONTENT, NOW, None)

    def add(alias: str) -> Model:
        return store.update_model(  # type: ignore[return-value]
            model.name, lambda current: current.with_alias(alias, version, etag="", now=NOW)
        )

    await asyncio.gather(*(add(f"alias-{index}") for index in range(16)))  # type: ignore[call-overload]
    found = await store.get_model(model.name)
    assert sorted(found.aliases) == sorted(f"alias-{index}" for index in range(16))
    assert found.revision == 17


async def test_of_two_updates_with_one_etag_one_is_refused(store: MetadataStore) -> None:
    model = await store.create_model(new_model(), None)
    version, _ = await store.create_version(model.name, CONTENT, NOW, None)
    outcomes = await asyncio.gather(
        *(
            store.update_model(
                model.name,
                lambda current, alias=alias: current.with_alias(alias, version, etag=model.etag, now=NOW),  # type: ignore[misc]
            )
            for alias in ("a", "b")
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Model", "ModelChangedError"]


async def test_blobs_belong_to_a_project(store: MetadataStore) -> None:
    blob = Blob(PROJECT, "a" * 64, 6_000_000_000)
    await asyncio.gather(*(store.add_blob(blob, NOW) for _ in range(4)))
    assert await store.find_blobs(PROJECT, ["a" * 64, "b" * 64]) == {"a" * 64: blob}
    assert await store.find_blobs(ProjectName("other"), ["a" * 64]) == {}
    assert await store.find_blobs(PROJECT, []) == {}
