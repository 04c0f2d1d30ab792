import hashlib
from pathlib import Path
from typing import Any

import pytest

from enxerto.client import ChecksumError, Client, DeploymentFailedError
from enxerto.inference.v1 import deployment_pb2
from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2
from fakes.scripted_services import ScriptedServices, refuse

VERSION = "projects/default/models/flowers/versions/3"
CONTENT = b"graph" * 1000


@pytest.fixture
def version(services: ScriptedServices) -> model_version_pb2.ModelVersion:
    message = model_version_pb2.ModelVersion(name=VERSION, state=model_version_pb2.ModelVersion.STATE_READY)
    message.artifacts.add(
        filename="model.onnx",
        role=model_version_pb2.Artifact.ROLE_MODEL,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )
    services.on("GetModelVersion", message)
    return message


def test_lists_read_every_page_and_no_more_than_asked(client: Client, services: ScriptedServices) -> None:
    def page(request: Any, _context: object) -> registry_service_pb2.ListModelsResponse:
        start = int(request.page_token or 0)
        names = [f"projects/default/models/m{number}" for number in range(start, min(start + 2, 5))]
        token = str(start + 2) if start + 2 < 5 else ""
        models = [model_pb2.Model(name=name) for name in names][: request.page_size]
        return registry_service_pb2.ListModelsResponse(models=models, next_page_token=token)

    services.on("ListModels", page)
    assert [model.name[-2:] for model in client.models()] == ["m0", "m1", "m2", "m3", "m4"]
    services.calls.clear()
    assert len(list(client.models(3))) == 3
    assert [request.page_size for request in services.requests("ListModels")] == [3, 1]


def test_promote_points_the_alias_to_the_number(
    client: Client, services: ScriptedServices, version: model_version_pb2.ModelVersion
) -> None:
    services.on("SetAlias", model_pb2.Model(name="projects/default/models/flowers", aliases={"production": VERSION}))
    client.promote("flowers@candidate")
    assert services.requests("GetModelVersion")[0].name == "projects/default/models/flowers/versions/candidate"
    request = services.requests("SetAlias")[0]
    assert (request.model, request.alias, request.version) == (VERSION[:31], "production", version.name)


def test_a_download_is_whole_and_not_repeated(
    client: Client, services: ScriptedServices, version: model_version_pb2.ModelVersion, tmp_path: Path
) -> None:
    chunks = [
        registry_service_pb2.DownloadBlobResponse(chunk=CONTENT[start : start + 999]) for start in range(0, 5000, 999)
    ]
    services.on("DownloadBlob", lambda _request, _context: iter(chunks))
    assert client.download("flowers@3", tmp_path / "new") == [tmp_path / "new" / version.artifacts[0].filename]
    assert (tmp_path / "new" / "model.onnx").read_bytes() == CONTENT
    client.download("flowers@3", tmp_path / "new")
    assert len(services.requests("DownloadBlob")) == 1


@pytest.mark.usefixtures("version")
def test_wrong_bytes_leave_nothing(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    services.on(
        "DownloadBlob", lambda _request, _context: iter([registry_service_pb2.DownloadBlobResponse(chunk=b"x")])
    )
    with pytest.raises(ChecksumError, match=r"model\.onnx"):
        client.download("flowers@3", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("version")
def test_deploying_again_updates_and_waits_for_the_new_version(client: Client, services: ScriptedServices) -> None:
    services.on("CreateDeployment", lambda _request, context: refuse(context, "ALREADY_EXISTS", "there"))
    state = deployment_pb2.Deployment.STATE_READY
    old = VERSION.replace("/3", "/2")
    looks = iter(
        [
            deployment_pb2.Deployment(state=state, serving_version=old, target_version=old),
            deployment_pb2.Deployment(state=state, serving_version=old, target_version=VERSION),
            deployment_pb2.Deployment(state=state, serving_version=VERSION, target_version=VERSION),
        ]
    )
    services.on("UpdateDeployment", deployment_pb2.Deployment())
    services.on("GetDeployment", lambda _request, _context: next(looks))
    assert client.deploy("flowers", "flowers@production").serving_version == VERSION
    update = services.requests("UpdateDeployment")[0]
    assert list(update.update_mask.paths) == ["model_version", "replicas"]
    assert update.deployment.model_version == "projects/default/models/flowers/versions/production"


@pytest.mark.usefixtures("version")
def test_a_version_that_does_not_answer_is_an_error(client: Client, services: ScriptedServices) -> None:
    failed = deployment_pb2.Deployment(state=deployment_pb2.Deployment.STATE_FAILED, target_version=VERSION)
    failed.error.code, failed.error.message = 9, "the graph cannot be loaded"
    services.on("CreateDeployment", failed)
    services.on("GetDeployment", failed)
    with pytest.raises(DeploymentFailedError, match="the graph cannot be loaded"):
        client.deploy("flowers", "flowers@3")
