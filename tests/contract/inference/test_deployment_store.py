"""One suite for every `DeploymentStore`: the one in memory, SQLite, PostgreSQL."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from enxerto.inference.adapters.sql_store import open_deployment_store
from enxerto.inference.domain import (
    Autoscaling,
    Batching,
    Comparison,
    Deployment,
    DeploymentSpec,
    Device,
    Fault,
    FaultKind,
    Placement,
    Rollout,
    ServableVersion,
    ShadowShare,
    State,
    TrafficShare,
)
from enxerto.inference.errors import (
    DeploymentChangedError,
    DeploymentExistsError,
    DeploymentNotFoundError,
    RequestIdReusedError,
)
from enxerto.inference.ports import DeploymentStore
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import PageRequest
from enxerto.vision.specs import Resize, Task, TensorSpec
from fakes.inference_world import InMemoryDeploymentStore

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DEFAULT = ProjectName("default")


ONE, TWO = (VersionName("default", "pets", number) for number in (1, 2))
CANDIDATE = VersionReference("default", "pets", "candidate")


def deployment(
    identity: str = "pets", project: str = "default", replicas: int = 1, traffic: tuple[TrafficShare, ...] = ()
) -> Deployment:
    spec = DeploymentSpec(VersionReference("default", "pets", "production"), replicas, {"team": "vision"}, traffic)
    return Deployment.create(DeploymentName(project, identity), spec, ONE, NOW)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DeploymentStore]:
    if request.param == "memory":
        yield InMemoryDeploymentStore()
        return
    url = f"sqlite+aiosqlite:///{tmp_path}/inference.db"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        url = await server.create_database(f"inference_{tmp_path.name.replace('-', '_')}")
    async with open_deployment_store(url) as opened:
        yield opened


async def test_what_is_created_is_read_back(store: DeploymentStore) -> None:
    created = await store.create(deployment(), "")
    assert await store.get(created.name) == created == deployment()


async def test_every_field_survives(store: DeploymentStore) -> None:
    created = await store.create(deployment(), "")
    fault = Fault(FaultKind.NOT_FOUND, "GONE", "it is gone")
    failed = dataclasses.replace(created.main.serve(ONE).fail(fault), target=None)
    changed = dataclasses.replace(created.advance(failed, NOW), generation=5)
    written = await store.replace(changed)
    assert await store.get(created.name) == written == dataclasses.replace(changed, revision=written.revision)
    cleared = await store.replace(written.advance(written.main.aim(TWO), NOW).answer(True, NOW))
    assert (await store.get(created.name)).fault is None
    assert cleared.state is State.READY


async def test_versions_beside_the_main_one_survive(store: DeploymentStore) -> None:
    split = deployment(traffic=(TrafficShare(CANDIDATE, 20), TrafficShare(VersionReference("default", "pets", "7"), 5)))
    created = await store.create(split, "r")
    assert await store.get(created.name) == split
    assert await store.create(split, "r") == split
    with pytest.raises(RequestIdReusedError):
        await store.create(deployment(), "r")
    fault = Fault(FaultKind.FAILED_PRECONDITION, "BROKEN", "it is broken")
    first, second = created.companions
    moved = created.advance(first.aim(TWO).serve(TWO), NOW).advance(second.fail(fault), NOW)
    written = await store.replace(moved)
    assert await store.get(created.name) == written
    assert written.companion(CANDIDATE) == Rollout(CANDIDATE, TWO, TWO)


async def test_what_else_a_user_decides_survives(store: DeploymentStore) -> None:
    plain = deployment()
    spec = dataclasses.replace(
        plain.spec,
        autoscaling=Autoscaling(1, 4, 1.5, 3.0, 60.0),
        batching=Batching(8, 0.0, (2, 8)),
        device=Device.GPU,
        warm_up_batch_sizes=(1, 8),
        shadow=ShadowShare(CANDIDATE, 30),
        placement=Placement.SHARED,
        pinned=True,
        default_priority=4,
        response_cache=2**30,
    )
    created = await store.create(dataclasses.replace(plain, spec=spec), "r")
    assert (await store.get(created.name)).spec == spec
    found = Comparison(ONE, TWO, images=3, agreed=2.25, dropped=1, failed=2)
    written = await store.replace(created.compare(found, NOW))
    assert (await store.get(created.name)).comparison == found
    written = await store.replace(written.compare(found, NOW))
    assert (await store.get(created.name)).comparison == written.comparison == Comparison(ONE, TWO, 6, 4.5, 2, 4)
    with pytest.raises(RequestIdReusedError):
        await store.create(plain, "r")


async def test_a_name_is_taken_once(store: DeploymentStore) -> None:
    await store.create(deployment(), "")
    await store.create(deployment(project="other"), "")
    with pytest.raises(DeploymentExistsError):
        await store.create(deployment(), "")


async def test_a_request_id_makes_a_create_idempotent(store: DeploymentStore) -> None:
    created = await store.create(deployment(), "r")
    advanced = await store.replace(created.advance(created.main.serve(ONE), NOW))
    assert await store.create(deployment(), "r") == advanced
    with pytest.raises(RequestIdReusedError):
        await store.create(deployment("other"), "r")
    with pytest.raises(RequestIdReusedError):
        await store.create(deployment(replicas=2), "r")


async def test_the_same_request_sent_many_times_at_once_creates_one(store: DeploymentStore) -> None:
    answers = await asyncio.gather(*(store.create(deployment(), "r") for _ in range(8)))
    assert answers == [deployment()] * 8
    others = (store.create(deployment("other"), request_id) for request_id in ("a", "b", "c", ""))
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert sum(outcome == deployment("other") for outcome in outcomes) == 1
    assert sum(isinstance(outcome, DeploymentExistsError) for outcome in outcomes) == 3


async def test_a_lost_update_is_refused(store: DeploymentStore) -> None:
    created = await store.create(deployment(), "")
    await store.replace(created.delete(NOW))
    with pytest.raises(DeploymentChangedError):
        await store.replace(created)


async def test_what_is_missing_is_not_found(store: DeploymentStore) -> None:
    with pytest.raises(DeploymentNotFoundError):
        await store.get(deployment().name)
    with pytest.raises(DeploymentNotFoundError):
        await store.replace(deployment())
    await store.remove(deployment().name)


async def test_what_is_removed_is_gone_with_its_request(store: DeploymentStore) -> None:
    await store.create(deployment(), "r")
    await store.remove(deployment().name)
    assert await store.all() == []
    assert await store.create(deployment(replicas=3), "r") == deployment(replicas=3)


async def test_pages_follow_each_other_in_byte_order(store: DeploymentStore) -> None:
    names = ["a", "a-b", "a1", "b", "ba"]
    for name in reversed(names):
        await store.create(deployment(name), "")
    await store.create(deployment("elsewhere", project="other"), "")
    seen: list[str] = []
    after = ""
    while True:
        page = await store.list(DEFAULT, PageRequest(2, after))
        seen += [item.name.deployment for item in page.items]
        after = page.next_after
        if not after:
            break
    assert seen == names
    assert len(await store.all()) == 6


async def test_the_facts_of_the_versions_that_serve_are_kept_with_the_deployment(store: DeploymentStore) -> None:
    outputs = TensorSpec("probabilities", "FP32", (-1, 2)), TensorSpec("embedding", "FP32", (-1, 8))
    one = ServableVersion(ONE, Task.CLASSIFICATION, ("cat", "dög"), 32, 24, outputs[:1])
    two = ServableVersion(TWO, Task.STYLE, (), 512, 256, outputs, Resize.FIT, "pixels", "0" * 64)
    created, other = await store.create(deployment(), ""), await store.create(deployment("other"), "")
    assert await store.facts(created.name, ONE) is None
    for kept in ([one], [one, two], [two], [two]):
        await store.keep_facts(created.name, kept)
        assert await store.facts(created.name, ONE) == (one if one in kept else None)
        assert await store.facts(created.name, TWO) == (two if two in kept else None)
    assert await store.facts(other.name, TWO) is None
    await store.remove(created.name)
    assert await store.facts(created.name, TWO) is None
