"""The Open Inference Protocol through the front's own server: forms of input and output, and all that can be wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from enxerto.inference.domain import Batching, DeploymentSpec
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.service import SpecChange
from enxerto.inference.v1.vision_service_pb2 import ClassifyRequest
from enxerto.kernel.names import DeploymentName, VersionReference
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import TinyModel, TinyNegative
from grpc_details import failed_call
from inference_front import ALIAS, MODELS, Front, infer_request, running_front
from inference_images import BAD, GOOD

OUTPUTS = {"class": "probabilities", "style": "pictures"}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
PLANES = (PIXELS.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path, shared_memory=True) as front:
        yield front


def expected(planes: np.ndarray = PLANES) -> np.ndarray:
    return OnnxModel(MODELS["class"].data).run(planes)["probabilities"]


async def violations(front: Front, request: pb.ModelInferRequest) -> dict[str, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        await front.open.ModelInfer(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return failed_call(refusal.value).violations


@contextlib.contextmanager
def shared_object(name: str, content: bytes) -> Iterator[str]:
    path = Path("/dev/shm") / name
    path.write_bytes(content)
    try:
        yield f"/{name}"
    finally:
        path.unlink()


def object_content(name: str) -> bytes:
    return (Path("/dev/shm") / name).read_bytes()


async def test_pixels_in_every_datatype_are_the_same_images(front: Front) -> None:
    for tensor, tolerance in ((PLANES, 1e-6), (PIXELS, 1e-5), (PLANES.astype(np.float16), 1e-3)):
        found = await front.infer("class", tensor)
        np.testing.assert_allclose(found["probabilities"], expected(), atol=tolerance)
    typed = infer_request("class", PIXELS)
    typed.inputs[0].contents.uint_contents.extend(PIXELS.ravel().tolist())
    del typed.raw_input_contents[:]
    answer = await front.open.ModelInfer(typed)
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 4), expected(), atol=1e-5)


async def test_pixels_of_any_size_where_the_graph_takes_them(front: Front) -> None:
    painted = await front.infer("style", np.ascontiguousarray(PIXELS[:, :8]))
    np.testing.assert_allclose(painted["pictures"], 1 - PLANES[:, :, :8], atol=1e-5)


async def test_the_best_classes_by_label(front: Front) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": pb.InferParameter(int64_param=9)}}]
    answer = await front.open.ModelInfer(infer_request("class", PLANES, id="mine", outputs=outputs))
    (output,) = answer.outputs
    assert (answer.id, output.datatype, list(output.shape)) == ("mine", "BYTES", [2, 4])
    order = np.argsort(-expected(), axis=1, kind="stable")
    first = f"{expected()[0, order[0, 0]]:f}:{order[0, 0]}:{MODELS['class'].labels[order[0, 0]]}".encode()
    assert answer.raw_output_contents[0].startswith(len(first).to_bytes(4, "little") + first)


async def test_a_version_by_number_and_by_alias(front: Front) -> None:
    front.registry.point("champion", next(name for name in front.registry.versions if name.model == "class"))
    for version in ("", "1", ALIAS, "champion"):
        answer = await front.open.ModelInfer(infer_request("class", PLANES, model_version=version))
        assert answer.model_version == "1"
        assert (await front.open.ModelReady(pb.ModelReadyRequest(name="class", version=version))).ready
    for version in ("2", "nobody"):
        with pytest.raises(grpc.RpcError) as refusal:
            await front.open.ModelInfer(infer_request("class", PLANES, model_version=version))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await front.open.ModelReady(pb.ModelReadyRequest(name="class", version=version))).ready


async def test_an_alias_of_what_may_not_be_served_is_not_ready(front: Front) -> None:
    quarantined = front.registry.add(2, "class")
    front.registry.quarantined.add(quarantined)
    front.registry.point("examined", quarantined)
    assert not (await front.open.ModelReady(pb.ModelReadyRequest(name="class", version="examined"))).ready


async def test_an_alias_that_is_followed_needs_no_database(front: Front) -> None:
    front.store.away = True
    answer = await front.open.ModelInfer(infer_request("class", PLANES, model_version=ALIAS))
    assert answer.model_version == "1"
    assert (await front.open.ModelReady(pb.ModelReadyRequest(name="class", version=ALIAS))).ready


async def test_parameters_are_read_or_ignored(front: Front) -> None:
    known = {"timeout": pb.InferParameter(int64_param=20_000_000), "priority": pb.InferParameter(uint64_param=1)}
    other = {"binary_data_output": pb.InferParameter(bool_param=True), "x": pb.InferParameter(string_param="y")}
    await front.open.ModelInfer(infer_request("class", PLANES, parameters={**known, **other}))
    for bad in (pb.InferParameter(int64_param=-1), pb.InferParameter(string_param="soon")):
        request = infer_request("class", PLANES, parameters={"timeout": bad})
        assert list(await violations(front, request)) == ["parameters[timeout]"]
    hasty = infer_request("class", PLANES, parameters={"timeout": pb.InferParameter(int64_param=1)})
    with pytest.raises(grpc.RpcError) as refusal:
        await asyncio.gather(*(front.open.ModelInfer(hasty) for _ in range(8)))
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_answers_in_order_and_goes_on_after_errors(front: Front) -> None:
    nan = np.full_like(PLANES, np.nan)
    bad = infer_request("class", nan, outputs=[{"name": "logits"}], id="1")
    missing = infer_request("nothing", PLANES, id="2")
    requests = [infer_request("class", PLANES, id="0"), bad, missing, infer_request("detect", [GOOD["png"]], id="3")]
    answers = [answer async for answer in front.open.ModelStreamInfer(iter(requests * 20))]
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "3"] * 20
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False] * 20
    for part in ("outputs[0].name", "raw_input_contents[0]: element 0 is not a finite number"):
        assert part in answers[1].error_message
    assert "'projects/default/deployments/nothing' was not found" in answers[2].error_message


async def test_a_stream_that_is_left_leaves_nothing_behind(front: Front) -> None:
    call = front.open.ModelStreamInfer()
    await call.write(infer_request("class", PLANES))
    assert (await call.read()).infer_response.outputs
    call.cancel()
    np.testing.assert_allclose((await front.infer("class", PLANES))["probabilities"], expected(), atol=1e-6)


async def test_statistics_are_what_was_done(front: Front) -> None:
    for _ in range(3):
        await front.infer("class", PLANES)
    with pytest.raises(grpc.RpcError):
        await front.infer("class", [b"no picture"])
    (one,) = (await front.open.ModelStatistics(pb.ModelStatisticsRequest(name="class"))).model_stats
    assert (one.name, one.version, one.inference_count, one.execution_count) == ("class", "1", 6, 4)
    inside = one.inference_stats
    assert (inside.success.count, inside.fail.count, inside.queue.count) == (3, 1, 3)
    assert inside.success.ns > inside.compute_infer.ns > 0
    assert [(batch.batch_size, batch.compute_infer.count) for batch in one.batch_stats] == [(1, 1), (2, 3)]
    assert one.last_inference == 1_767_225_600_000
    full = "projects/default/deployments/class"
    (same,) = (await front.open.ModelStatistics(pb.ModelStatisticsRequest(name=full))).model_stats
    assert (same.name, same.execution_count) == (full, one.execution_count)
    all_of_them = (await front.open.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
    assert [one.name for one in all_of_them] == sorted(MODELS)


async def test_a_configuration_says_how_a_model_is_served(front: Front) -> None:
    config = (await front.open.ModelConfig(pb.ModelConfigRequest(name="class", version=ALIAS))).config
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 64)
    assert [(one.data_type, list(one.dims), one.format) for one in config.input] == [
        (pb.TYPE_STRING, [1], pb.ModelInput.FORMAT_NONE),
        (pb.TYPE_UINT8, [16, 16, 3], pb.ModelInput.FORMAT_NHWC),
        (pb.TYPE_FP16, [3, 16, 16], pb.ModelInput.FORMAT_NCHW),
        (pb.TYPE_FP32, [3, 16, 16], pb.ModelInput.FORMAT_NCHW),
    ]
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
        ("probabilities", pb.TYPE_FP32, [4])
    ]
    assert (config.dynamic_batching.max_queue_delay_microseconds, config.parameters["task"].string_value) == (
        1000,
        "CLASSIFICATION",
    )


async def test_the_largest_batch_of_a_configuration_fits_a_message(tmp_path: Path) -> None:
    models = {"class": TinyModel(size=224), "style": TinyNegative(size=512)}
    async with running_front(tmp_path, models) as front:

        async def send(name: str, count: int, side: int) -> int:
            return len((await front.infer(name, np.zeros((count, 3, side, side), np.float32)))[OUTPUTS[name]])

        for name, side in (("class", 224), ("style", 512)):
            most = (await front.open.ModelConfig(pb.ModelConfigRequest(name=name))).config.max_batch_size
            assert 1 < most < 64
            assert await send(name, most, side) == most
            # What is left of the message is little, and what is smaller is not held to it.
            with pytest.raises(grpc.RpcError) as refusal:
                await send(name, most + 4, side)
            assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len((await front.infer("class", np.zeros((64, 224, 224, 3), np.uint8)))["probabilities"]) == 64
        assert await send("style", 64, 64) == 64


async def test_a_configuration_says_how_the_deployment_gathers(front: Front) -> None:
    config = (await front.open.ModelConfig(pb.ModelConfigRequest(name="class"))).config
    assert list(config.dynamic_batching.preferred_batch_size) == [32]
    change = SpecChange(batching=Batching(max_delay_s=0.25, preferred_sizes=(4, 48)))
    await front.use_cases.deployments.update(DeploymentName("default", "class"), change, "")
    await front.use_cases.reconciler.tick()
    config = (await front.open.ModelConfig(pb.ModelConfigRequest(name="class"))).config
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 48]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250_000
    front.replicas.batches.clear()
    await asyncio.wait_for(asyncio.gather(*(front.infer("class", PLANES) for _ in range(2))), 20)
    assert front.replicas.batches == [4]


async def test_urgent_requests_of_either_protocol_go_first(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    change = SpecChange(batching=Batching(max_size=1, max_delay_s=0), default_priority=3)
    await front.use_cases.deployments.update(DeploymentName("default", "class"), change, "")
    await front.use_cases.reconciler.tick()
    gate, predict, order = asyncio.Event(), front.replicas.predict, []

    async def wait(endpoint: Any, version: Any, payloads: Any, timeout_s: float) -> Any:
        order.extend(payload.priority for payload in payloads)
        await gate.wait()
        return await predict(endpoint, version, payloads, timeout_s)

    monkeypatch.setattr(front.replicas, "predict", wait)

    async def typed(priority: int) -> Any:
        image = {"content": GOOD["png"]}
        name = "projects/default/deployments/class"
        return await front.vision.Classify(ClassifyRequest(deployment=name, images=[image], priority=priority))

    async def untyped(priority: int) -> Any:
        parameters = {"priority": pb.InferParameter(uint64_param=priority)} if priority else {}
        return await front.open.ModelInfer(infer_request("class", [GOOD["png"]], parameters=parameters))

    calls = []
    for count, asked in enumerate((typed(0), untyped(0), typed(4), untyped(0), typed(2), untyped(1), typed(0)), 1):
        calls.append(asyncio.ensure_future(asked))
        while front.meter.waiting + len(order) < count:
            await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*calls)
    # The first two were on their way already.
    assert order == [0, 0, 1, 2, 0, 0, 4]
    with pytest.raises(grpc.RpcError) as refusal:
        await typed(-1)
    assert list(failed_call(refusal.value).violations) == ["priority"]


async def test_the_repository_is_the_deployments(front: Front) -> None:
    models = (await front.open.RepositoryIndex(pb.RepositoryIndexRequest())).models
    assert [(one.name, one.version, one.state) for one in models] == [(name, "1", "READY") for name in sorted(MODELS)]
    assert await front.open.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="class"))
    parameters = {"config": pb.ModelRepositoryParameter(string_param="{}")}
    for call, request, code, says in (
        (front.open.RepositoryModelLoad, {"model_name": "no"}, grpc.StatusCode.NOT_FOUND, "was not found"),
        (front.open.RepositoryModelLoad, {"model_name": "class", "parameters": parameters},
         grpc.StatusCode.FAILED_PRECONDITION, "UpdateDeployment"),
        (front.open.RepositoryModelLoad, {"model_name": "class", "repository_name": "s3"},
         grpc.StatusCode.INVALID_ARGUMENT, "one repository"),
        (front.open.RepositoryModelUnload, {"model_name": "class"}, grpc.StatusCode.FAILED_PRECONDITION, "Delete"),
        (front.open.RepositoryModelUnload, {"model_name": "no"}, grpc.StatusCode.NOT_FOUND, "was not found"),
    ):  # fmt: skip
        kind = pb.RepositoryModelLoadRequest if call is front.open.RepositoryModelLoad else None
        with pytest.raises(grpc.RpcError) as refusal:
            await call((kind or pb.RepositoryModelUnloadRequest)(**request))
        assert (refusal.value.code(), says in str(refusal.value.details())) == (code, True)


async def test_a_load_waits_until_the_deployment_answers(front: Front) -> None:
    name = DeploymentName("default", "later")
    spec = DeploymentSpec(VersionReference("default", "class", ALIAS), 1)
    await front.use_cases.deployments.create(name, spec, "")
    index = pb.RepositoryIndexRequest(ready=True)
    assert "later" not in [one.name for one in (await front.open.RepositoryIndex(index)).models]
    impatient = front.open.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="later"), timeout=0.5)
    with pytest.raises(grpc.RpcError) as refusal:
        await impatient
    assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    loading = asyncio.ensure_future(front.open.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="later")))
    for _ in range(3):
        await front.use_cases.reconciler.tick()
    await asyncio.wait_for(loading, 20)
    assert "later" in [one.name for one in (await front.open.RepositoryIndex(index)).models]


def placed(region: str, size: int, offset: int = 0) -> dict[str, pb.InferParameter]:
    return {
        "shared_memory_region": pb.InferParameter(string_param=region),
        "shared_memory_byte_size": pb.InferParameter(int64_param=size),
        "shared_memory_offset": pb.InferParameter(int64_param=offset),
    }


def by_region(**changes: Any) -> pb.ModelInferRequest:
    tensor = {"name": "images", "datatype": "FP32", "shape": PLANES.shape, **changes}
    return pb.ModelInferRequest(model_name="class", inputs=[tensor])


async def test_tensors_lie_in_shared_memory(front: Front) -> None:
    content = bytes(100) + PLANES.tobytes() + bytes(200)
    with shared_object("enxerto-test-tensors", content) as key:
        register = pb.SystemSharedMemoryRegisterRequest(name="all", key=key, offset=50, byte_size=len(content) - 50)
        await front.open.SystemSharedMemoryRegister(register)
        request = by_region(parameters=placed("all", PLANES.nbytes, 50))
        request.outputs.add(name="probabilities", parameters=placed("all", 32, 50 + PLANES.nbytes + 10))
        answer = await front.open.ModelInfer(request)
        assert list(answer.raw_output_contents) == [b""]
        assert answer.outputs[0].parameters["shared_memory_region"].string_param == "all"
        written = np.frombuffer(object_content("enxerto-test-tensors"), "<f4", 8, 110 + PLANES.nbytes)
        np.testing.assert_allclose(written.reshape(2, 4), expected(), atol=1e-6)
        for wrong, field, says in (
            (by_region(parameters=placed("none", PLANES.nbytes)), "inputs[0].parameters", "no region 'none'"),
            (by_region(parameters=placed("all", 12)), "inputs[0].parameters", "needs 6144"),
            (by_region(parameters=placed("all", PLANES.nbytes, 10_000)), "inputs[0].parameters", "reach beyond"),
            (by_region(parameters=placed("all", 0)), "inputs[0].parameters[shared_memory_byte_size]", "at least 1"),
            (
                by_region(parameters=placed("all", 9), datatype="BYTES", shape=[2]),
                "inputs[0].parameters",
                "1 bytes follow",
            ),
        ):
            assert says in (await violations(front, wrong))[field]
        small = by_region(parameters=placed("all", PLANES.nbytes, 50))
        small.outputs.add(name="probabilities", parameters=placed("all", 31))
        assert list(await violations(front, small)) == ["outputs[0].parameters[shared_memory_byte_size]"]
        assert list((await front.open.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions) == [
            "all"
        ]
        await front.open.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
        assert "no region 'all'" in str(await violations(front, by_region(parameters=placed("all", PLANES.nbytes))))


async def test_shared_memory_is_off_unless_it_is_turned_on(tmp_path: Path) -> None:
    async with running_front(tmp_path) as front:
        with shared_object("enxerto-test-off", bytes(10)) as key, pytest.raises(grpc.RpcError) as refusal:
            await front.open.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name="a", key=key, byte_size=10)
            )
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert failed_call(refusal.value).reason == "SHARED_MEMORY_OFF"
        assert "not open to this caller" in str(await violations(front, by_region(parameters=placed("a", 6144))))


async def test_all_that_is_wrong_is_said_at_once(front: Front) -> None:
    request = infer_request("class", np.full((1, 3, 16, 15), np.nan, np.float32), outputs=[{"name": "logits"}])
    request.inputs[0].name = "pixels"
    request.parameters["timeout"].string_param = "soon"
    assert list(await violations(front, request)) == [
        "parameters[timeout]", "outputs[0].name", "inputs[0].name", "inputs[0].shape", "raw_input_contents[0]"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
async def test_bad_neighbours_harm_nobody(front: Front, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that go into the same batch: each good one is answered, each bad one refused."""
    image, reason = BAD[kind]
    alone = (await front.infer("class", [GOOD["jpeg"]]))["probabilities"]
    gate, predict, held = asyncio.Event(), front.replicas.predict, [0]

    async def wait(endpoint: Any, version: Any, payloads: Any, timeout_s: float) -> Any:
        held[0] += sum(payload.items for payload in payloads)
        await gate.wait()
        return await predict(endpoint, version, payloads, timeout_s)

    monkeypatch.setattr(front.replicas, "predict", wait)
    calls: list[Any] = [front.infer("class", [GOOD["jpeg"]]) for _ in range(6)]
    calls[3:3] = [violations(front, infer_request("class", [GOOD["png"], image])) for _ in range(3)]
    asked = asyncio.gather(*calls)
    # What is empty needs no replica to be refused.
    while front.meter.waiting + held[0] < 6 + 6 * bool(image):
        await asyncio.sleep(0.01)
    gate.set()
    answers = await asked
    assert max(front.replicas.batches) > 2
    for answer in answers[:3] + answers[6:]:
        np.testing.assert_allclose(answer["probabilities"], alone, atol=1e-6)
    for answer in answers[3:6]:
        assert list(answer) == ["images[1]"]
        assert reason in answer["images[1]"]


async def test_tensors_that_lie_harm_nobody(front: Front) -> None:
    def changed(**fields: Any) -> pb.ModelInferRequest:
        request = infer_request("class", PLANES)
        if "raw" in fields:
            request.raw_input_contents[:] = [fields.pop("raw")]
        for name, value in fields.items():
            if name == "shape":
                request.inputs[0].shape[:] = value
            else:
                setattr(request.inputs[0], name, value)
        return request

    liars = [
        changed(raw=PLANES.tobytes()[:-1]),
        changed(raw=b""),
        changed(raw=np.full_like(PLANES, np.inf).tobytes()),
        changed(shape=[0, 3, 16, 16], raw=b""),
        changed(shape=[10_000, 3, 16, 16]),
        changed(shape=[2**62, 3, 16, 16]),
        changed(shape=[-1, 3, 16, 16]),
        changed(datatype="BYTES", shape=[1], raw=b"\xff\xff\xff\xff1234"),
        changed(datatype="BYTES", shape=[10_000], raw=b"\x01\x00\x00\x00x"),
        changed(datatype="UINT8"),
        changed(datatype="FP64"),
        changed(datatype=""),
    ]
    results = await asyncio.gather(
        *(call for liar in liars for call in (violations(front, liar), front.infer("class", PLANES)))
    )
    assert all(results[::2])
    for answer in results[1::2]:
        np.testing.assert_allclose(answer["probabilities"], expected(), atol=1e-6)
