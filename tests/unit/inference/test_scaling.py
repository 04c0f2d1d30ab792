"""Replicas, batches and warm-up of a deployment, as its user asks for them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from enxerto.inference import converters
from enxerto.inference.adapters.serve_cluster import PoolOptions, ReplicaOptions, ServeCluster, ServePorts
from enxerto.inference.domain import (
    Application,
    Autoscaling,
    Batching,
    Deployment,
    DeploymentSpec,
    Device,
    Placement,
    Pool,
    Scale,
    State,
    TrafficShare,
)
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from fakes.inference_stack import NAME, World

REFERENCE = "projects/default/models/pets/versions/production"


@pytest.fixture
def world() -> World:
    return World()


class RecordingDashboard:
    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        self.bodies.append(body)
        return {}


async def declared(application: Application | Pool, *, tensorrt: bool = False) -> dict[str, Any]:
    dashboard = RecordingDashboard()
    pool = PoolOptions(1000, 2.0, 3)
    options = ReplicaOptions("r:1", None, "/s", "/c", 0.1, 0.5, 2, 100, 100, pool, tensorrt)  # type: ignore[arg-type]
    await ServeCluster(dashboard, options, ServePorts(1, 2), True).apply([application])  # type: ignore[arg-type]
    (declaration,) = dashboard.bodies[0]["applications"]
    return declaration


def application(scale: Scale, device: Device = Device.CPU) -> Application:
    return Application(NAME, VersionName("default", "pets", 1), scale, device)


async def test_bounds_are_left_to_the_cluster() -> None:
    fixed = await declared(application(Scale(3)))
    bounds = {"min_replicas": 3, "initial_replicas": 3, "max_replicas": 3}
    assert fixed["deployments"] == [{"name": "replica", "autoscaling_config": bounds}]
    scaled = await declared(application(Scale(2, Autoscaling(1, 4, 1.5, 3.0, 60.0))))
    assert scaled["deployments"][0]["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 1.5,
        "upscale_delay_s": 3.0,
        "downscale_delay_s": 60.0,
    }
    # Serve starts replicas anew when the arguments change, and only then.
    assert fixed["args"] == scaled["args"]


async def test_a_gpu_is_reserved_where_one_is_asked_for() -> None:
    on_cpu, on_gpu = [await declared(application(Scale(1), device)) for device in (Device.CPU, Device.GPU)]
    assert "device" not in on_cpu["args"]
    assert (on_gpu["args"]["device"], on_gpu["args"]["gpus"]) == ("GPU", 0.5)


async def test_tensorrt_is_for_replicas_on_gpus_and_where_it_is_asked_for() -> None:
    on_cpu, on_gpu, without = [
        (await declared(application(Scale(1), device), tensorrt=asked))["args"]
        for device, asked in ((Device.CPU, True), (Device.GPU, True), (Device.GPU, False))
    ]
    assert on_gpu["tensorrt"] is True
    assert "tensorrt" not in on_cpu
    assert "tensorrt" not in without


async def test_the_pool_has_a_budget_and_no_version() -> None:
    pool = await declared(Pool(Scale(2)))
    assert (pool["name"], pool["import_path"]) == ("pool", "enxerto.inference.replica.pool:build")
    assert pool["deployments"][0]["autoscaling_config"]["max_replicas"] == 2
    assert [pool["args"][name] for name in ("memory_bytes", "wait_s", "max_waiting")] == [1000, 2.0, 3]
    assert "model_version" not in pool["args"]


def test_a_version_has_replicas_in_proportion_to_its_share() -> None:
    spec = DeploymentSpec(VersionReference.parse(REFERENCE), 3, autoscaling=Autoscaling(2, 8))
    assert spec.scale(100) == Scale(3, Autoscaling(2, 8))
    assert spec.scale(10) == Scale(1, Autoscaling(1, 1))
    assert spec.scale(50) == Scale(2, Autoscaling(1, 4))


async def test_more_replicas_are_used_and_none_is_asked_that_is_gone(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)))
    await world.update(replicas=3)
    assert [await world.answer() for _ in range(9)] == [1] * 9
    assert len({endpoint for endpoint, _, _ in world.replicas.calls}) == 3
    await world.update(replicas=1)
    world.replicas.calls.clear()
    assert [await world.answer() for _ in range(9)] == [1] * 9
    assert {endpoint.address.rpartition(":")[2] for endpoint, _, _ in world.replicas.calls} == {"0"}
    assert world.meter.counts["replica_failed"] == 0


def target(world: World, number: int) -> int:
    """How many replicas of a version the cluster is to run."""
    return world.cluster.targets[f"default.pets.default.pets.v{number}"]


async def test_an_autoscaled_version_begins_with_as_many_replicas_as_were_asked_for(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.room[one] = 1
    world.bring_up_s = 30
    world.start()
    await world.deploy(world.registry.point("production", one), replicas=2, autoscaling=Autoscaling(1, 4))
    assert await world.state() is State.DEPLOYING
    world.cluster.room.clear()
    await world.tick()
    assert await world.state() is State.READY
    assert target(world, 1) == 2
    # The load may take one away, and a restart of the cluster is a beginning.
    world.cluster.targets["default.pets.default.pets.v1"] = 1
    await world.tick()
    assert target(world, 1) == 1
    world.cluster.slow.add(one)
    world.cluster.forget()
    await world.tick()
    world.cluster.slow.clear()
    await world.tick()
    assert target(world, 1) == 2


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_new_version_gets_as_many_replicas_as_the_load_gave_the_old_one(world: World, replicas: int) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    world.bring_up_s = 30
    world.start()
    await world.deploy(world.registry.point("production", one), replicas, autoscaling=Autoscaling(1, 4))
    world.cluster.targets["default.pets.default.pets.v1"] = 4
    await world.tick()
    world.cluster.room[two] = 3
    world.registry.point("production", two)
    declared = len(world.cluster.applied)
    await world.tick()
    assert target(world, 2) == 4
    assert await world.answer() == 1
    # What the old version does meanwhile, or a restart of the front, changes nothing of it.
    world.cluster.targets["default.pets.default.pets.v1"] = 2
    await world.tick(5)
    assert len(world.cluster.applied) == declared + 1
    world.cluster.targets["default.pets.default.pets.v1"] = 4
    world.start()
    await world.tick()
    assert target(world, 2) == 4
    assert await world.answer() == 1
    world.cluster.room.clear()
    await world.tick()
    assert await world.answer() == 2
    await world.tick(5)
    assert target(world, 2) == 4
    running = world.cluster.running["default.pets.default.pets.v2"]
    assert running.scale.autoscaling == Autoscaling(1, 4)
    declared = len(world.cluster.applied)
    await world.tick(5)
    assert len(world.cluster.applied) == declared


@pytest.mark.parametrize("autoscaling", [None, Autoscaling(1, 4)])
async def test_a_canary_that_was_up_for_long_has_time_to_grow(world: World, autoscaling: Autoscaling | None) -> None:
    one, two = world.registry.add(1), world.registry.add(2)
    candidate = world.registry.point("candidate", two)
    share = TrafficShare(candidate, 10)
    await world.deploy(world.registry.point("production", one), 3, traffic=(share,), autoscaling=autoscaling)
    await asyncio.sleep(world.bring_up_s + 0.05)
    world.cluster.room[two] = 2
    world.registry.point("production", two)
    await world.tick()
    assert (await world.deployment()).fault is None
    assert (await world.deployment()).serving == one
    world.cluster.room.clear()
    await world.tick()
    assert (await world.deployment()).serving == two
    assert len({end for end in world.replicas.kept if ".v2:" in end.address}) == 3


async def test_replicas_that_the_cluster_says_nothing_of_go_on_answering(world: World) -> None:
    one = world.registry.add(1)
    world.cluster.silent.add(one)
    await world.deploy(world.registry.point("production", one))
    assert await world.state() is State.DEPLOYING
    world.cluster.silent.clear()
    await world.tick()
    world.cluster.silent.add(one)
    await world.update(autoscaling=Autoscaling(1, 4))
    assert await world.state() is State.READY
    assert [await world.answer() for _ in range(4)] == [1] * 4
    assert world.replicas.kept
    world.cluster.silent.clear()
    world.cluster.slow.add(one)
    await world.tick()
    assert await world.state() is State.DEPLOYING


async def test_batches_are_as_large_as_the_deployment_wants_and_change_under_load(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), batching=Batching(4, 0.0))
    world.replicas.gate.clear()
    world.meter.batches.clear()
    first = [asyncio.ensure_future(world.answer()) for _ in range(18)]
    await asyncio.sleep(0.01)
    await world.update(batching=Batching(8, 0.0))
    second = [asyncio.ensure_future(world.answer()) for _ in range(18)]
    await asyncio.sleep(0.01)
    world.replicas.gate.set()
    assert await asyncio.gather(*first, *second) == [1] * 36
    assert max(world.meter.batches) == 8
    assert world.meter.batches.count(4) >= 3


async def test_a_version_is_warmed_up_with_the_batches_that_were_asked_for(world: World) -> None:
    await world.deploy(world.registry.point("production", world.registry.add(1)), warm_up_batch_sizes=(1, 5))
    assert await world.state() is State.READY
    assert [items for _, _, items in world.replicas.calls] == [(1,), (5,)]


def create(**fields: Any) -> tuple[DeploymentName, DeploymentSpec, str]:
    deployment = deployment_pb2.Deployment(**{"model_version": REFERENCE, **fields})
    return converters.create_arguments(
        deployment_service_pb2.CreateDeploymentRequest(
            parent="projects/default", deployment_id="pets", deployment=deployment
        )
    )


def test_what_a_user_asks_for_is_read_and_shown() -> None:
    _, spec, _ = create(
        replicas=2,
        traffic=[{"model_version": f"{REFERENCE[:-10]}7", "percent": 5}],
        autoscaling={"max_replicas": 4, "upscale_delay": Duration(seconds=3)},
        batching={"max_size": 8, "max_delay": Duration(), "preferred_sizes": [8, 4]},
        default_priority=3,
        response_cache={"max_bytes": 4096},
        device=deployment_pb2.Deployment.DEVICE_GPU,
        warm_up_batch_sizes=[1, 8],
        placement=deployment_pb2.Deployment.PLACEMENT_SHARED,
        pinned=True,
    )
    assert (spec.placement, spec.pinned) == (Placement.SHARED, True)
    assert spec.traffic == (TrafficShare(VersionReference("default", "pets", "7"), 5),)
    assert spec.autoscaling == Autoscaling(1, 4, 1.0, 3.0, 600.0)
    assert (spec.batching, spec.default_priority, spec.response_cache) == (Batching(8, 0.0, (4, 8)), 3, 4096)
    assert (spec.device, spec.warm_up_batch_sizes) == (Device.GPU, (1, 8))
    version = VersionName("default", "pets", 1)
    shown = converters.deployment_to_proto(Deployment.create(NAME, spec, version, datetime(2026, 1, 1, tzinfo=UTC)))
    assert (list(shown.batching.preferred_sizes), shown.default_priority) == ([4, 8], 3)
    assert shown.response_cache.max_bytes == 4096


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"replicas": 65}, ["replicas"]),
        ({"autoscaling": {}}, ["autoscaling.max_replicas"]),
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, ["autoscaling.max_replicas"]),
        (
            {"autoscaling": {"max_replicas": 2, "target_ongoing_batches": -1, "upscale_delay": Duration(seconds=-1)}},
            ["autoscaling.target_ongoing_batches", "autoscaling.upscale_delay"],
        ),
        ({"batching": {"max_size": -1, "max_delay": Duration(seconds=2)}}, ["batching.max_size", "batching.max_delay"]),
        (
            {"batching": {"max_size": 8, "max_delay": Duration(seconds=2), "preferred_sizes": [4, 9]}},
            ["batching.max_delay", "batching.preferred_sizes"],
        ),
        ({"batching": {"preferred_sizes": [4, 4]}}, ["batching.preferred_sizes"]),
        ({"batching": {"preferred_sizes": [0]}}, ["batching.preferred_sizes"]),
        ({"batching": {"preferred_sizes": range(1, 10)}}, ["batching.preferred_sizes"]),
        ({"default_priority": -1}, ["default_priority"]),
        ({"response_cache": {}}, ["response_cache.max_bytes"]),
        ({"response_cache": {"max_bytes": 2**34 + 1}}, ["response_cache.max_bytes"]),
        ({"warm_up_batch_sizes": [0]}, ["warm_up_batch_sizes"]),
        ({"warm_up_batch_sizes": [1] * 9}, ["warm_up_batch_sizes"]),
        ({"device": 9}, ["device"]),
        ({"placement": 9}, ["placement"]),
        ({"traffic": [{"percent": 0}]}, ["traffic[0].model_version", "traffic[0].percent"]),
        ({"traffic": [{"model_version": "x", "percent": 100}]}, ["traffic[0].model_version", "traffic[0].percent"]),
    ],
)
def test_every_bad_field_is_named(fields: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        create(**fields)
    assert [violation.field for violation in refusal.value.violations] == [f"deployment.{field}" for field in named]


def update(paths: list[str], **fields: Any) -> dict[str, Any]:
    name = str(NAME)
    request = deployment_service_pb2.UpdateDeploymentRequest(deployment=deployment_pb2.Deployment(name=name, **fields))
    request.update_mask.paths.extend(paths)
    _, change, _ = converters.update_arguments(request)
    spec = DeploymentSpec(VersionReference.parse(REFERENCE), 3, autoscaling=Autoscaling(1, 4), batching=Batching(2))
    changed = change.apply(spec)
    return {name: getattr(changed, name) for name in ("replicas", "autoscaling", "batching", "traffic")}


def test_an_update_changes_what_it_names_or_what_is_set() -> None:
    before = {"replicas": 3, "autoscaling": Autoscaling(1, 4), "batching": Batching(2), "traffic": ()}
    assert update([], replicas=5) == {**before, "replicas": 5}
    assert update(["autoscaling"]) == {**before, "autoscaling": None}
    assert update(["batching"], replicas=5) == {**before, "batching": Batching()}
    assert update([], batching={"max_size": 9}) == {**before, "batching": Batching(9)}
    with pytest.raises(InvalidArgumentError, match="immutable"):
        update(["device"])
    with pytest.raises(InvalidArgumentError, match="immutable"):
        update(["placement"])
