"""Many models behind a budget for fewer: the front's own server over shared replicas of this process."""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from enxerto.inference.bootstrap import wire
from enxerto.inference.domain import DeploymentSpec, Placement, State
from enxerto.inference.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from enxerto.inference.replica.residents import ResidentLimits
from enxerto.inference.replica.shared import SharedAnswering, shared_predictors
from enxerto.inference.server import UseCases, build_server
from enxerto.inference.settings import InferenceSettings
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.errors import DataLossError
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference
from enxerto.runtime.metrics import new_registry
from enxerto.vision.images import ImageLimits
from enxerto.vision.onnx.session import OnnxModel
from fakes.inference_world import CountingMeter, InMemoryCluster, InMemoryDeploymentStore, InMemoryModelRegistry
from fakes.pooled_replicas import SECRET, CallContext, PooledReplicas
from fakes.quality_stores import InMemoryQualityStore, InMemorySampleFiles
from fakes.tiny_onnx import SIZE, TinyModel
from grpc_details import failed_call
from inference_front import SettableClock, infer_request

MODELS = {f"m{seed}": TinyModel(seed, copies=150_000) for seed in range(6)}
"""Of 7 MB each."""
FILE_BYTES = max(len(tiny.data) for tiny in MODELS.values())
IMAGES = np.random.default_rng(0).random((4, 3, SIZE, SIZE), np.float32)


FIRST = """
import asyncio, sys
from pathlib import Path
from enxerto.inference.replica.residents import ResidentLimits
from enxerto.inference.replica.shared import shared_predictors
from enxerto.kernel.names import VersionName
from enxerto.vision.images import ImageLimits

async def main():
    limits = ResidentLimits(10**9, 10.0, 64)
    fetch = lambda version: Path(sys.argv[1], f"{version.model}.onnx")
    residents, before = shared_predictors(fetch, 2, ImageLimits(10**6, 10**6), limits), 0
    for name in ("m0", "m1", "m2"):
        async with residents.using(VersionName("default", name, 1)):
            print(residents.occupancy.held_bytes - before)
            before = residents.occupancy.held_bytes

asyncio.run(main())
"""
"""A program that prints what each of three models takes."""


class SharedFront:
    """A front whose deployments are all shared."""

    def __init__(self, use_cases: UseCases, replicas: PooledReplicas, meter: CountingMeter, channel) -> None:
        self.use_cases = use_cases
        self.replicas = replicas
        self.meter = meter
        self.open = GRPCInferenceServiceStub(channel)

    async def deploy(self, name: str, **spec) -> None:
        reference = VersionReference("default", name, "1")
        whole = DeploymentSpec(reference, placement=Placement.SHARED, **spec)
        await self.use_cases.deployments.create(DeploymentName("default", name), whole, "")
        for _ in range(3):
            await self.use_cases.reconciler.tick()

    async def deployment(self, name: str):
        return await self.use_cases.deployments.get(DeploymentName("default", name))

    async def loads(self) -> int:
        """Of models by the pool so far."""
        await self.use_cases.reconciler.tick()
        return self.meter.counts["pool_loads"]

    async def infer(self, model: str, image: int) -> np.ndarray:
        answer = await self.open.ModelInfer(infer_request(model, IMAGES[image : image + 1]))
        return np.frombuffer(answer.raw_output_contents[0], "<f4")


@contextlib.asynccontextmanager
async def shared_front(folder: Path, limits: ResidentLimits) -> AsyncIterator[SharedFront]:
    settings = InferenceSettings(
        replica_secret_file="/unused", database_url="unused", port=0, metrics_port=0, drain_s=0, home=folder
    )
    registry, replicas, meter = InMemoryModelRegistry(), PooledReplicas(folder, limits), CountingMeter()
    replicas.keep_files({registry.add_tiny(1, tiny, name): tiny.data for name, tiny in MODELS.items()})
    use_cases = wire(
        settings,
        store=InMemoryDeploymentStore(),
        registry=registry,
        cluster=InMemoryCluster(),
        replicas=replicas,
        quality=InMemoryQualityStore(),
        sample_files=InMemorySampleFiles(),
        clock=SettableClock(),
        meter=meter,
    )
    server = build_server(settings, new_registry(), use_cases)
    async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield SharedFront(use_cases, replicas, meter, channel)


async def test_many_models_answer_behind_a_budget_for_few(tmp_path: Path) -> None:
    expected = {name: OnnxModel(tiny.data).run(IMAGES)["probabilities"] for name, tiny in MODELS.items()}
    choice, budget = random.Random(0), int(3.5 * FILE_BYTES)
    async with shared_front(tmp_path, ResidentLimits(budget, 10.0, 64)) as front:
        for name in MODELS:
            await front.deploy(name)
        assert front.meter.states == {State.READY: len(MODELS)}

        async def client(count: int) -> None:
            for _ in range(count):
                name, image = choice.choice(list(MODELS)), choice.randrange(len(IMAGES))
                np.testing.assert_allclose(await front.infer(name, image), expected[name][image], atol=1e-5)

        await asyncio.gather(*(client(25) for _ in range(8)))
        await front.use_cases.reconciler.tick()
        models, held, of, waiting = front.meter.pool
        assert 1 <= models <= 3
        assert FILE_BYTES * models <= held <= of == budget
        assert waiting == 0
        loads, evictions = front.meter.counts["pool_loads"], front.meter.counts["pool_evictions"]
        assert loads - evictions == models
        assert loads > len(MODELS)


async def test_a_pinned_model_stays_and_one_that_never_fits_beside_it_fails(tmp_path: Path) -> None:
    async with shared_front(tmp_path, ResidentLimits(int(1.5 * FILE_BYTES), 10.0, 64)) as front:
        await front.deploy("m0", pinned=True)
        # Two when the first measurement took more of the process than the model: it is loaded and measured again then.
        loads = await front.loads()
        assert loads in (1, 2)
        await front.deploy("m1")
        failed = await front.deployment("m1")
        assert failed.state is State.FAILED
        assert failed.fault.reason == "MODEL_TOO_LARGE"
        assert "pinned models take" in failed.fault.message
        await front.infer("m0", 0)
        assert await front.loads() == loads


async def test_no_room_in_time_is_resource_exhausted_with_a_delay(tmp_path: Path) -> None:
    async with shared_front(tmp_path, ResidentLimits(int(1.5 * FILE_BYTES), 0.5, 64)) as front:
        await front.deploy("m0")
        await front.deploy("m1")
        (residents,) = front.replicas.residents.values()
        async with residents.using(VersionName("default", "m1", 1)):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await front.infer("m0", 0)
        error = failed_call(refusal.value)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM_FOR_MODEL")
        assert error.retry_after_s == 1.0
        assert front.meter.counts["no_room"] == 1
        await front.infer("m0", 0)


def answering(folder: Path, fetch) -> SharedAnswering:
    limits = ResidentLimits(10 * FILE_BYTES, 10.0, 64)
    return SharedAnswering(SECRET, shared_predictors(fetch, 2, ImageLimits(10**6, 10**6), limits))


REQUEST = pb.PredictRequest(
    model_version="projects/default/models/m0/versions/1",
    tensor=pb.RawTensor(parts=[IMAGES.tobytes()], shape=IMAGES.shape, datatype="FP32"),
)


async def test_a_file_that_cannot_be_served_is_told_from_a_registry_that_is_away(tmp_path: Path) -> None:
    def damaged(version: VersionName) -> Path:
        raise DataLossError(f"the bytes of {version} are others")

    context = CallContext()
    answer = await answering(tmp_path, damaged).Predict(REQUEST, context)
    assert answer.not_loaded.reason == pb.NotLoaded.REASON_NOT_SERVABLE
    assert "are others" in answer.not_loaded.message
    assert context.code is None


@pytest.mark.parametrize("method", ["Predict", "Arrange"])
async def test_a_shared_replica_is_for_the_front_only(tmp_path: Path, method: str) -> None:
    replica, context = answering(tmp_path, lambda version: tmp_path), CallContext("wrong")
    request = REQUEST if method == "Predict" else pb.ArrangeRequest()
    assert not (await getattr(replica, method)(request, context)).ByteSize()
    assert context.code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_first_model_of_a_process_is_measured_as_any_other(tmp_path: Path) -> None:
    for name in ("m0", "m1", "m2"):
        (tmp_path / f"{name}.onnx").write_bytes(MODELS[name].data)
    # A process of its own: what a runtime sets up once is set up in this one.
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FIRST, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await done.communicate()
    first, second, third = map(int, output.split())
    assert first == pytest.approx(second, rel=0.25)
    assert third == pytest.approx(second, rel=0.25)
