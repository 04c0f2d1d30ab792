"""Models, versions and aliases through the front door."""

import asyncio
import hashlib
from typing import Any

import grpc
import pytest

from enxerto.registry.v1 import model_pb2, model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.type.v1 import metric_pb2
from grpc_details import FailedCall, failed_call
from registry_requests import MODEL, PROJECT, create_model, model_version, streamed, upload_messages

SHA256 = hashlib.sha256(b"weights").hexdigest()


async def refused(call: Any) -> FailedCall:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failed_call(caught.value)


async def upload(registry: Any, data: bytes = b"weights") -> None:
    await registry.stub.UploadBlob(streamed(upload_messages(data)))


async def create_version(registry: Any, *, request_id: str = "", **options: Any) -> Any:
    version = model_version(SHA256, **options)
    request = pb.CreateModelVersionRequest(parent=MODEL, model_version=version, request_id=request_id)
    return await registry.stub.CreateModelVersion(request)


async def prepare(registry: Any) -> None:
    await registry.stub.CreateModel(create_model())
    await upload(registry)


async def test_a_model_goes_from_bytes_to_production(registry: Any) -> None:
    await prepare(registry)
    version = await create_version(registry)
    assert version.name == f"{MODEL}/versions/1"
    assert version.state == model_version_pb2.ModelVersion.STATE_READY
    assert version.artifacts[0].size_bytes == len(b"weights")
    sent = model_version(SHA256)
    for field in ("label_map", "preprocess", "inputs", "outputs", "metrics", "parity", "lineage", "labels"):
        assert getattr(version, field) == getattr(sent, field)

    model = await registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="production", version=version.name))
    assert dict(model.aliases) == {"production": version.name}
    assert model.latest_version == version.name
    for reference in ("production", "1"):
        found = await registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=f"{MODEL}/versions/{reference}"))
        assert found == version
    assert await registry.stub.GetModel(pb.GetModelRequest(name=MODEL)) == model

    model = await registry.stub.DeleteAlias(pb.DeleteAliasRequest(model=MODEL, alias="production"))
    assert not model.aliases
    assert registry.metric('enxerto_registry_versions_total{state="ready"}') == 1
    assert registry.metric("enxerto_registry_alias_moves_total") == 2


async def resolve(registry: Any, *names: str) -> dict[str, tuple[str, int]]:
    answer = await registry.stub.ResolveModelVersions(pb.ResolveModelVersionsRequest(names=names))
    found = {one.name: (one.version, one.state) for one in answer.versions}
    assert list(found) == [one.name for one in answer.versions]
    return found


async def test_many_names_are_resolved_at_once(registry: Any) -> None:
    await prepare(registry)
    good, bad = await create_version(registry), await create_version(registry, agreement=0.5)
    await registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="production", version=good.name))
    alias, nothing, huge = (f"{MODEL}/versions/{one}" for one in ("production", "staging", "9" * 9))
    elsewhere = alias.replace("default", "elsewhere")
    found = await resolve(registry, bad.name, nothing, alias, huge, alias, elsewhere, f"{MODEL}/versions/3", good.name)
    ready, quarantined = good.state, bad.state
    assert ready != quarantined
    assert found == {
        bad.name: (bad.name, quarantined),
        alias: (good.name, ready),
        good.name: (good.name, ready),
    }
    assert list(found) == [bad.name, alias, good.name]
    assert not await resolve(registry, nothing)


async def test_names_to_resolve_are_checked_and_bounded(registry: Any) -> None:
    names = [f"{MODEL}/versions/1", "models/pets/versions/1", "", f"{MODEL}/versions/0"]
    call = await refused(resolve(registry, *names))
    assert (call.code, set(call.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {f"names[{n}]" for n in (1, 2, 3)})
    for count in (0, 1001):
        call = await refused(resolve(registry, *(f"{MODEL}/versions/{n + 1}" for n in range(count))))
        assert set(call.violations) == {"names"}
    assert not await resolve(registry, *(f"{MODEL}/versions/{n + 1}" for n in range(1000)))


async def test_missing_things_are_not_found(registry: Any) -> None:
    call = await refused(registry.stub.GetModel(pb.GetModelRequest(name=MODEL)))
    assert (call.code, call.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert call.resource == ("enxerto/Model", MODEL)
    await registry.stub.CreateModel(create_model())
    call = await refused(registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=f"{MODEL}/versions/999999999")))
    assert call.code == grpc.StatusCode.NOT_FOUND
    for reference, reason in (("7", "VERSION_NOT_FOUND"), ("production", "ALIAS_NOT_FOUND")):
        name = f"{MODEL}/versions/{reference}"
        call = await refused(registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=name)))
        assert (call.code, call.reason) == (grpc.StatusCode.NOT_FOUND, reason)
        assert call.resource is not None
        assert call.resource[1] == name
    call = await refused(registry.stub.DeleteAlias(pb.DeleteAliasRequest(model=MODEL, alias="production")))
    assert call.reason == "ALIAS_NOT_FOUND"


async def test_a_model_exists_once(registry: Any) -> None:
    await registry.stub.CreateModel(create_model())
    call = await refused(registry.stub.CreateModel(create_model()))
    assert (call.code, call.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_EXISTS")
    assert call.resource == ("enxerto/Model", MODEL)


async def test_every_bad_field_of_a_model_is_named(registry: Any) -> None:
    model = model_pb2.Model(display_name="x" * 201, description="x" * 4001, labels={"Bad Key": "x", "ok": "x" * 501})
    request = pb.CreateModelRequest(parent="projects/a/b", model_id="a/b", model=model, request_id="x" * 129)
    call = await refused(registry.stub.CreateModel(request))
    assert (call.code, call.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(call.violations) == {
        "parent",
        "model_id",
        "request_id",
        "model.task",
        "model.display_name",
        "model.description",
        "model.labels['Bad Key']",
        "model.labels['ok']",
    }
    call = await refused(registry.stub.CreateModel(pb.CreateModelRequest()))
    assert set(call.violations) == {"parent", "model_id", "model", "model.task"}


async def test_every_bad_field_of_a_version_is_named(registry: Any) -> None:
    version = model_version("no digest")
    version.artifacts.add(filename="../x", sha256="a" * 64, media_type="html")
    version.artifacts.add(filename="model.onnx", role=model_version_pb2.Artifact.ROLE_MODEL, sha256="a" * 64)
    version.label_map.names.extend(["cat", ""])
    version.preprocess.height = 0
    version.preprocess.crop_fraction = float("nan")
    version.preprocess.interpolation = "nearest"
    version.preprocess.mean.append(0.5)
    version.preprocess.std[0] = 0
    version.inputs[0].datatype = "FLOAT"
    version.outputs[0].shape[1] = 0
    version.outputs[0].name = ""
    version.metrics[0].value = float("inf")
    version.metrics.add(name="F1", value=1, split="all")
    version.parity.agreement = 1.5
    version.parity.max_abs_difference = float("nan")
    version.parity.sample_count = 0
    version.lineage.snapshot_digest = "x"
    version.lineage.base_model = "resnet"
    version.lineage.training_run = "projects/default/runs/x"
    call = await refused(
        registry.stub.CreateModelVersion(pb.CreateModelVersionRequest(parent="models/x", model_version=version))
    )
    assert call.code == grpc.StatusCode.INVALID_ARGUMENT
    path = "model_version"
    assert set(call.violations) == {
        "parent",
        f"{path}.artifacts",
        f"{path}.artifacts[0].sha256",
        f"{path}.artifacts[1].filename",
        f"{path}.artifacts[1].role",
        f"{path}.artifacts[1].media_type",
        f"{path}.artifacts[2].filename",
        f"{path}.label_map.names[2]",
        f"{path}.label_map.names[3]",
        f"{path}.preprocess.height",
        f"{path}.preprocess.crop_fraction",
        f"{path}.preprocess.interpolation",
        f"{path}.preprocess.mean",
        f"{path}.preprocess.std",
        f"{path}.inputs[0].datatype",
        f"{path}.outputs[0].shape",
        f"{path}.outputs[0].name",
        f"{path}.metrics[0].value",
        f"{path}.metrics[2].name",
        f"{path}.metrics[2].split",
        f"{path}.parity.agreement",
        f"{path}.parity.max_abs_difference",
        f"{path}.parity.sample_count",
        f"{path}.lineage.snapshot_digest",
        f"{path}.lineage.base_model",
        f"{path}.lineage.training_run",
    }
    call = await refused(registry.stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=MODEL)))
    expected = {"artifacts", "label_map", "preprocess", "inputs", "outputs", "lineage"}
    assert set(call.violations) == {f"{path}.{name}" for name in expected}


async def test_hundreds_of_bad_fields_fit_into_the_answer(registry: Any) -> None:
    version = model_version(SHA256)
    for _ in range(900):
        version.metrics.add(name="BAD", split="all")
    call = await refused(
        registry.stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=MODEL, model_version=version))
    )
    assert call.code == grpc.StatusCode.INVALID_ARGUMENT
    assert any("violations from here on" in description for description in call.violations.values())


@pytest.mark.parametrize("model_id", ["", "a/b", "A", "1a", "a-", "a" * 64, "ação", "a\n", "../a"])
async def test_bad_ids_are_refused(registry: Any, model_id: str) -> None:
    call = await refused(registry.stub.CreateModel(create_model(model_id)))
    assert set(call.violations) == {"model_id"}


async def test_a_version_needs_all_its_bytes(registry: Any) -> None:
    await registry.stub.CreateModel(create_model())
    version = model_version("c" * 64)
    version.artifacts.add(filename="report.html", role=model_version_pb2.Artifact.ROLE_REPORT, sha256="d" * 64)
    request = pb.CreateModelVersionRequest(parent=MODEL, model_version=version)
    call = await refused(registry.stub.CreateModelVersion(request))
    assert (call.code, call.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BLOBS_MISSING")
    assert call.preconditions == [("BLOB", f"{PROJECT}/blobs/{digit * 64}") for digit in "cd"]
    listed = await registry.stub.ListModelVersions(pb.ListModelVersionsRequest(parent=MODEL))
    assert not listed.model_versions


async def test_a_version_whose_outputs_are_of_another_task_is_refused(registry: Any) -> None:
    await prepare(registry)
    version = model_version(SHA256)
    del version.outputs[:]
    version.outputs.add(name="boxes", datatype="FP32", shape=[-1, 100, 4])
    request = pb.CreateModelVersionRequest(parent=MODEL, model_version=version)
    call = await refused(registry.stub.CreateModelVersion(request))
    assert (call.code, call.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OUTPUTS_OF_ANOTHER_TASK")
    assert call.preconditions == [("TASK", MODEL)]
    assert not (await registry.stub.ListModelVersions(pb.ListModelVersionsRequest(parent=MODEL))).model_versions


async def test_a_version_may_embed_besides_what_its_task_gives(registry: Any) -> None:
    await prepare(registry)
    version = model_version(SHA256)
    version.outputs.add(name="embedding", datatype="FP32", shape=[-1, 16])
    made = await registry.stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=MODEL, model_version=version))
    assert made.outputs == version.outputs


async def test_a_version_whose_export_disagrees_is_quarantined(registry: Any) -> None:
    await prepare(registry)
    version = await create_version(registry, agreement=0.9989)
    assert version.state == model_version_pb2.ModelVersion.STATE_QUARANTINED
    call = await refused(
        registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="production", version=version.name))
    )
    assert (call.code, call.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_READY")
    assert call.preconditions == [("STATE", version.name)]
    assert (await create_version(registry, agreement=0.999)).state == model_version_pb2.ModelVersion.STATE_READY
    assert registry.metric('enxerto_registry_versions_total{state="quarantined"}') == 1


async def test_a_repeated_request_makes_one_version(registry: Any) -> None:
    await prepare(registry)
    first = await create_version(registry, request_id="run-1")
    assert await create_version(registry, request_id="run-1") == first
    call = await refused(create_version(registry, request_id="run-1", agreement=0.9999))
    assert (call.code, call.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert (await create_version(registry, request_id="run-2")).name == f"{MODEL}/versions/2"
    assert registry.metric('enxerto_registry_versions_total{state="ready"}') == 2
    again = await registry.stub.CreateModel(create_model("cats", request_id="model-1"))
    assert await registry.stub.CreateModel(create_model("cats", request_id="model-1")) == again


async def test_numbers_have_no_gaps_when_many_create_at_once(registry: Any) -> None:
    await prepare(registry)
    made = await asyncio.gather(*(create_version(registry) for _ in range(12)))
    assert sorted(version.name for version in made) == sorted(f"{MODEL}/versions/{n}" for n in range(1, 13))


async def test_pages(registry: Any) -> None:
    await prepare(registry)
    for _ in range(5):
        await create_version(registry)
    names, token = [], ""
    while True:
        request = pb.ListModelVersionsRequest(parent=MODEL, page_size=2, page_token=token)
        page = await registry.stub.ListModelVersions(request)
        names += [version.name for version in page.model_versions]
        if not (token := page.next_page_token):
            break
    assert names == [f"{MODEL}/versions/{n}" for n in (5, 4, 3, 2, 1)]
    for model_id in ("b", "a"):
        await registry.stub.CreateModel(create_model(model_id))
    page = await registry.stub.ListModels(pb.ListModelsRequest(parent=PROJECT, page_size=2))
    assert [model.name for model in page.models] == [f"{PROJECT}/models/a", f"{PROJECT}/models/b"]
    page = await registry.stub.ListModels(pb.ListModelsRequest(parent=PROJECT, page_token=page.next_page_token))
    assert [model.name for model in page.models] == [MODEL]
    assert not page.next_page_token


async def test_a_page_ends_before_it_is_too_large_for_a_client_as_it_comes(registry: Any) -> None:
    await prepare(registry)
    large = model_version(SHA256)
    large.metrics.extend(
        metric_pb2.Metric(name="recall", value=0.5, split="val", class_name=f"{number:0200}") for number in range(2000)
    )
    for _ in range(20):
        await registry.stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=MODEL, model_version=large))
    numbers, token, pages = [], "", 0
    while pages == 0 or token:
        page = await registry.stub.ListModelVersions(pb.ListModelVersionsRequest(parent=MODEL, page_token=token))
        numbers += [int(version.name.rsplit("/", 1)[1]) for version in page.model_versions]
        token, pages = page.next_page_token, pages + 1
    assert numbers == list(range(20, 0, -1))
    assert pages > 1


@pytest.mark.parametrize("token", ["%%%", "a", "AA==", "8J-YgA==", "LTE=", "MTAwMDAwMDAwMDA=", "é"])
async def test_bad_page_tokens_are_refused(registry: Any, token: str) -> None:
    request = pb.ListModelVersionsRequest(parent=MODEL, page_size=-1, page_token=token)
    call = await refused(registry.stub.ListModelVersions(request))
    assert set(call.violations) == {"page_size", "page_token"}


async def test_an_alias_moves_with_the_etag_that_was_read(registry: Any) -> None:
    await prepare(registry)
    first, second = await create_version(registry), await create_version(registry)
    read = await registry.stub.GetModel(pb.GetModelRequest(name=MODEL))

    def move(version: Any, etag: str) -> Any:
        request = pb.SetAliasRequest(model=MODEL, alias="production", version=version.name, etag=etag)
        return registry.stub.SetAlias(request)

    moved = await move(first, read.etag)
    assert moved.etag != read.etag
    assert moved.update_time.ToNanoseconds() > read.update_time.ToNanoseconds()
    call = await refused(move(second, read.etag))
    assert (call.code, call.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await registry.stub.GetModel(pb.GetModelRequest(name=MODEL))) == moved
    assert await move(first, moved.etag) == moved
    assert (await move(second, "")).aliases["production"] == second.name


async def test_an_alias_points_to_a_version_of_its_own_model(registry: Any) -> None:
    await prepare(registry)
    await create_version(registry)
    call = await refused(registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="1", version=MODEL)))
    assert set(call.violations) == {"alias", "version"}
    other = f"{PROJECT}/models/other/versions/1"
    call = await refused(registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="x", version=other)))
    assert call.violations == {"version": f"must be a version of {MODEL}"}
    name = f"{MODEL}/versions/9"
    call = await refused(registry.stub.SetAlias(pb.SetAliasRequest(model=MODEL, alias="x", version=name)))
    assert call.reason == "VERSION_NOT_FOUND"


async def test_a_restart_keeps_everything(start: Any) -> None:
    async with start() as registry:
        await prepare(registry)
        version = await create_version(registry)
    async with start() as registry:
        found = await registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=version.name))
        assert found == version
