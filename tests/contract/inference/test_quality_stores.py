"""One suite for every `QualityStore` and for every `SampleFiles`: those in memory, SQLite, PostgreSQL, a folder, S3."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enxerto.inference.adapters.sample_files import ObjectSampleFiles, open_sample_files
from enxerto.inference.adapters.sql_quality import SqlQualityStore
from enxerto.inference.adapters.sql_store import open_deployment_store
from enxerto.inference.domain import (
    FeedbackRecord,
    LiveAccuracy,
    Sample,
    SampleReason,
    SamplesUsage,
    SamplingPolicy,
)
from enxerto.inference.errors import SampleNotFoundError
from enxerto.inference.ports import QualityStore, SampleFiles
from enxerto.kernel.names import DeploymentName, SampleName, VersionName
from enxerto.kernel.paging import PageRequest
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles
from flushes import Flush

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
PETS, OTHER = DeploymentName("default", "pets"), DeploymentName("other", "pets")
FIRST, SECOND = VersionName("default", "pets", 1), VersionName("default", "pets", 2)


def feedback(number: int, label: str = "cat", **changes: object) -> FeedbackRecord:
    record = FeedbackRecord(PETS, f"{number:016x}", 0, FIRST, "cat", label, True, NOW)
    return replace(record, **changes)


def sample(identity: str, **changes: object) -> Sample:
    made = Sample(
        name=SampleName("default", "pets", identity),
        reason=SampleReason.UNCERTAIN,
        version=FIRST,
        predicted_label="cat",
        confidence=0.25,
        distance=1.5,
        identity=f"{7:016x}",
        index=3,
        size_bytes=1000,
        sha256="ab" * 32,
        create_time=NOW,
    )
    return replace(made, **changes)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[QualityStore]:
    if request.param == "memory":
        yield InMemoryQualityStore()
        return
    url = f"sqlite+aiosqlite:///{tmp_path}/inference.db"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        url = await server.create_database(f"quality_{tmp_path.name.replace('-', '_')}")
    async with open_deployment_store(url) as opened:
        yield SqlQualityStore(opened.engine)


@pytest.fixture(params=["memory", "folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> SampleFiles:
    if request.param == "memory":
        return InMemorySampleFiles()
    if request.param == "folder":
        return open_sample_files("", tmp_path / "samples")
    return ObjectSampleFiles(request.getfixturevalue("s3_store"))


async def test_feedback_is_counted_by_version(store: QualityStore) -> None:
    await store.put_feedback([feedback(number) for number in range(3)])
    await store.put_feedback([feedback(3, "dog"), feedback(4, "fox", known=False), feedback(5, version=SECOND)])
    await store.put_feedback([feedback(6, deployment=OTHER)])
    assert await store.accuracies(PETS, NOW) == [LiveAccuracy(FIRST, 5, 3, 1), LiveAccuracy(SECOND, 1, 1, 0)]
    assert await store.accuracies(PETS, NOW + timedelta(milliseconds=1)) == []


async def test_what_is_said_later_of_the_same_image_counts(store: QualityStore) -> None:
    await store.put_feedback([feedback(1), feedback(1, index=1)])
    await store.put_feedback([feedback(1, "dog")])
    assert await store.accuracies(PETS, NOW) == [LiveAccuracy(FIRST, 2, 1, 0)]


async def test_much_feedback_at_once_and_from_several_callers(store: QualityStore) -> None:
    many = [feedback(number) for number in range(1000)]
    await asyncio.gather(*(store.put_feedback(many) for _ in range(3)))
    assert await store.accuracies(PETS, NOW) == [LiveAccuracy(FIRST, 1000, 1000, 0)]


async def test_a_policy_takes_the_place_of_the_one_before(store: QualityStore) -> None:
    assert await store.policy(PETS) is None
    policy = SamplingPolicy(PETS, 10, 2**33, 0.5, 3.5, NOW)
    await store.put_policy(SamplingPolicy(PETS, 1, 5, 0.1, 0.0, NOW))
    await store.put_policy(policy)
    await store.put_policy(replace(policy, deployment=OTHER))
    assert await store.policy(PETS) == policy
    assert {one.deployment for one in await store.policies()} == {PETS, OTHER}


async def test_samples_are_read_back_with_what_feedback_said(store: QualityStore) -> None:
    kept = sample("s1", size_bytes=2**33)
    await store.add_sample(kept)
    await store.add_sample(sample("s2", distance=None, index=4))
    assert await store.get_sample(kept.name) == kept
    await store.put_feedback([feedback(7, "dog", index=3), feedback(7, "cow", index=4, deployment=OTHER)])
    assert await store.get_sample(kept.name) == replace(kept, true_label="dog")
    page = await store.list_samples(PETS, PageRequest())
    assert [(one.true_label, one.distance) for one in page.items] == [("dog", 1.5), ("", None)]
    assert await store.samples_usage(PETS) == SamplesUsage(2, 2**33 + 1000)
    assert await store.samples_usage(OTHER) == SamplesUsage(0, 0)
    await store.remove_sample(kept.name)
    await store.remove_sample(kept.name)
    with pytest.raises(SampleNotFoundError):
        await store.get_sample(kept.name)


async def test_pages_follow_each_other(store: QualityStore) -> None:
    for number in (3, 1, 2, 4):
        await store.add_sample(sample(f"s{number}"))
    await store.add_sample(sample("s0", name=SampleName("other", "pets", "s0")))
    first = await store.list_samples(PETS, PageRequest(3))
    second = await store.list_samples(PETS, PageRequest(3, first.next_after))
    assert [one.name.sample for one in (*first.items, *second.items)] == ["s1", "s2", "s3", "s4"]
    assert second.next_after == ""


async def test_what_is_old_is_forgotten(store: QualityStore) -> None:
    later = NOW + timedelta(days=1)
    await store.put_feedback([feedback(1), feedback(2, time=later), feedback(3, deployment=OTHER)])
    await store.put_policy(SamplingPolicy(PETS, 1, 5, 0.1, 0.0, NOW))
    await store.add_sample(sample("s1"))
    await store.add_sample(sample("s2", create_time=later))
    assert await store.deployments() == {PETS, OTHER}
    assert await store.samples_before(PETS, later) == [SampleName("default", "pets", "s1")]
    await store.forget(PETS, later)
    assert await store.policy(PETS) is None
    assert await store.accuracies(PETS, NOW) == [LiveAccuracy(FIRST, 1, 1, 0)]
    assert await store.accuracies(OTHER, NOW) == [LiveAccuracy(FIRST, 1, 1, 0)]
    await store.forget_feedback(later)
    assert await store.accuracies(OTHER, NOW) == []
    assert await store.deployments() == {PETS}


async def test_an_image_in_a_folder_is_on_the_disk_before_it_counts(tmp_path: Path, flushes: list[Flush]) -> None:
    name = SampleName("default", "pets", "s1")
    await open_sample_files("", tmp_path).put(name, b"one")
    path = tmp_path / str(name)
    *folders, content, named = flushes
    assert [one.target for one in folders] == [parent.parent for parent in reversed(path.parents[:5])]
    assert content.names == {content.target.name} != {path.name}
    assert (named.target, path.name in named.names) == (path.parent, True)
    assert path.read_bytes() == b"one"


async def test_images_are_kept_until_they_are_deleted(files: SampleFiles) -> None:
    first, second = SampleName("default", "pets", "s1"), SampleName("other", "pets", "s2")
    assert await files.get(first) is None
    await files.put(first, b"one")
    await files.put(second, b"")
    assert (await files.get(first), await files.get(second)) == (b"one", b"")
    assert set(await files.names()) == {first, second}
    await files.delete(first)
    await files.delete(first)
    assert await files.get(first) is None
    assert await files.names() == [second]
