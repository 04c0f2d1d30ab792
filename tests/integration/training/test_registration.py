"""Registering under a model that is there already, with a registry and a training service that has no cluster."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from obstore.store import MemoryStore

from enxerto.kernel.errors import UnavailableError
from enxerto.kernel.names import ModelName
from enxerto.registry.v1 import registry_service_pb2
from enxerto.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from enxerto.training.adapters.object_store import StoredBlobs
from enxerto.training.adapters.registry_client import GrpcRegistry, open_channel
from enxerto.training.errors import ModelTaskMismatchError
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2, sweep_service_pb2_grpc, training_run_pb2
from enxerto.training.v1 import training_service_pb2 as pb
from enxerto.type.v1 import task_pb2
from enxerto.vision.specs import Task
from fakes.training_values import a_result, a_run
from registry_requests import create_model
from training_calls import PROJECT, import_digits, refusal
from training_stack import Stack

BOXES = ModelName("default", "boxes-of-another")


@pytest.fixture(scope="module")
def boxes(service: Stack) -> str:
    request = create_model(BOXES.model)
    request.model.task = task_pb2.TASK_DETECTION
    with grpc.insecure_channel(service.registry.address) as channel:
        return str(RegistryServiceStub(channel).CreateModel(request).name)


@pytest.fixture
async def registry(service: Stack, tmp_path: Path) -> AsyncIterator[tuple[GrpcRegistry, StoredBlobs]]:
    blobs = StoredBlobs(MemoryStore(), tmp_path)
    async with open_channel(service.registry.address, None) as channel:
        yield GrpcRegistry(channel, blobs), blobs


def test_runs_and_sweeps_for_a_model_of_another_task_are_refused(service: Stack, boxes: str) -> None:
    spec = training_run_pb2.TrainingSpec(
        snapshot=import_digits(service), base_model="baseModels/efficientnet-lite0", model=boxes
    )
    with service.channel() as channel, service.stubs() as (_, training):
        run = training_run_pb2.TrainingRun(spec=spec)
        sweep = sweep_pb2.Sweep(spec=spec, max_trials=1)
        sweep.parameters.add(field="learning_rate", float_range=sweep_pb2.FloatRange(min=1e-4, max=1e-2))
        sweeps = sweep_service_pb2_grpc.SweepServiceStub(channel)
        for failed in (
            refusal(training.CreateTrainingRun, pb.CreateTrainingRunRequest(parent=PROJECT, training_run=run)),
            refusal(sweeps.CreateSweep, sweep_service_pb2.CreateSweepRequest(parent=PROJECT, sweep=sweep)),
        ):
            assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_TASK_MISMATCH")
            assert failed.preconditions == [("TASK", boxes)]


async def test_a_model_that_came_to_be_of_another_task_meanwhile_gets_no_version(
    service: Stack, boxes: str, registry: tuple[GrpcRegistry, StoredBlobs]
) -> None:
    run = a_run()
    with pytest.raises(ModelTaskMismatchError, match="DETECTION"):
        await registry[0].register(replace(run, spec=replace(run.spec, model=BOXES)), a_result())
    async with open_channel(service.registry.address, None) as channel:
        request = registry_service_pb2.ListModelVersionsRequest(parent=boxes)
        assert not (await RegistryServiceStub(channel).ListModelVersions(request)).model_versions


async def test_versions_of_the_same_task_share_a_model(registry: tuple[GrpcRegistry, StoredBlobs]) -> None:
    grpc_registry, blobs = registry
    run, result, content = a_run(), a_result(), b"a graph"
    blobs.put(content)
    artifact = replace(result.artifacts[0], sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    result = replace(result, artifacts=(artifact,))
    model = ModelName("default", "digits-twice")
    assert await grpc_registry.task_of(model) is None
    one, two = (replace(run, uid=uid, spec=replace(run.spec, model=model)) for uid in ("one", "two"))
    versions = [(await grpc_registry.register(each, result)).version for each in (one, two, one)]
    assert versions == [f"{model}/versions/{number}" for number in (1, 2, 1)]
    assert await grpc_registry.task_of(model) is Task.CLASSIFICATION


async def test_a_registry_that_cannot_be_reached_tells_no_task(tmp_path: Path) -> None:
    async with open_channel("127.0.0.1:9", None) as channel:
        with pytest.raises(UnavailableError):
            await GrpcRegistry(channel, StoredBlobs(MemoryStore(), tmp_path)).task_of(BOXES)
