import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from enxerto.client import ChecksumError, Client, DeploymentFailedError
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2, vision_service_pb2
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


def watched(*deployments: deployment_pb2.Deployment) -> list[deployment_service_pb2.WatchDeploymentResponse]:
    return [
        deployment_service_pb2.WatchDeploymentResponse(deployment=one, cursor=cursor)
        for cursor, one in enumerate(deployments, 1)
    ]


@pytest.mark.usefixtures("version")
def test_deploying_again_updates_and_waits_for_the_new_version(client: Client, services: ScriptedServices) -> None:
    services.on("CreateDeployment", lambda _request, context: refuse(context, "ALREADY_EXISTS", "there"))
    state = deployment_pb2.Deployment.STATE_READY
    old = VERSION.replace("/3", "/2")
    seen = watched(
        deployment_pb2.Deployment(state=state, serving_version=old, target_version=old),
        deployment_pb2.Deployment(state=state, serving_version=old, target_version=VERSION),
        deployment_pb2.Deployment(state=state, serving_version=VERSION, target_version=VERSION),
    )

    def broken_once(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from seen[request.after_cursor :][:2]
        refuse(context, "UNAVAILABLE", "restarting")

    services.on("UpdateDeployment", deployment_pb2.Deployment())
    services.on("WatchDeployment", broken_once)
    assert client.deploy("flowers", "flowers@production").serving_version == VERSION
    update = services.requests("UpdateDeployment")[0]
    assert list(update.update_mask.paths) == ["model_version"]
    assert update.deployment.model_version == "projects/default/models/flowers/versions/production"
    assert [request.after_cursor for request in services.requests("WatchDeployment")] == [0, 2]


@pytest.mark.usefixtures("version")
def test_a_version_that_does_not_answer_is_an_error(client: Client, services: ScriptedServices) -> None:
    failed = deployment_pb2.Deployment(state=deployment_pb2.Deployment.STATE_FAILED, target_version=VERSION)
    failed.error.code, failed.error.message = 9, "the graph cannot be loaded"
    services.on("CreateDeployment", failed)
    services.on("WatchDeployment", lambda _request, _context: iter(watched(failed)))
    with pytest.raises(DeploymentFailedError, match="the graph cannot be loaded"):
        client.deploy("flowers", "flowers@3")


@pytest.mark.usefixtures("version")
def test_a_canary_that_does_not_answer_is_an_error_too(client: Client, services: ScriptedServices) -> None:
    state = deployment_pb2.Deployment.STATE_READY
    ready = deployment_pb2.Deployment(state=state, serving_version=VERSION, target_version=VERSION)
    coming = ready.traffic.add(percent=5)
    waiting = deployment_pb2.Deployment.FromString(ready.SerializeToString())
    coming.target_version = coming.error.message = "no luck"
    services.on("CreateDeployment", ready)
    services.on("WatchDeployment", lambda _request, _context: iter(watched(waiting, ready)))
    with pytest.raises(DeploymentFailedError, match="no luck"):
        client.deploy("flowers", "flowers@3", traffic={"flowers@candidate": 5})


def test_settings_of_a_deployment_go_by_their_names(client: Client, services: ScriptedServices) -> None:
    services.on("UpdateDeployment", lambda request, _context: request.deployment)
    changed = client.update_deployment(
        "flowers",
        replicas=2,
        traffic={"flowers@candidate": 10},
        shadow={"flowers@7": 50},
        autoscaling={"max_replicas": 4, "upscale_delay": 2.5},
        batching={"max_size": 8, "preferred_sizes": [4, 8]},
        default_priority=3,
        response_cache={"max_bytes": 2**20},
        warm_up_batch_sizes=[1, 8],
        pinned=True,
    )
    assert changed.settings["pinned"]
    assert changed.traffic[0].model_version == "projects/default/models/flowers/versions/candidate"
    assert changed.shadow is not None
    assert (changed.shadow.model_version, changed.shadow.percent) == ("projects/default/models/flowers/versions/7", 50)
    assert changed.shadow.agreement is None
    assert changed.settings["autoscaling"] == {"max_replicas": 4, "upscale_delay": 2.5}
    assert changed.settings["batching"] == {"max_size": 8, "preferred_sizes": [4, 8]}
    assert changed.settings["response_cache"] == {"max_bytes": 2**20}
    assert (changed.settings["default_priority"], changed.settings["warm_up_batch_sizes"]) == (3, [1, 8])
    client.update_deployment("flowers", traffic={}, shadow=None)
    update = services.requests("UpdateDeployment")[1]
    assert list(update.update_mask.paths) == ["traffic", "shadow"]
    assert not update.deployment.traffic
    with pytest.raises(TypeError, match="no such setting of a deployment: replica"):
        client.update_deployment("flowers", replica=2)  # type: ignore[call-arg]


def test_a_watch_shows_each_change_and_ends_with_the_deployment(client: Client, services: ScriptedServices) -> None:
    state = deployment_pb2.Deployment
    seen = watched(state(state=state.STATE_READY), state(state=state.STATE_DELETING))
    services.on("WatchDeployment", lambda _request, _context: iter(seen))
    assert [one.state for one in client.watch_deployment("flowers")] == ["READY", "DELETING"]


def test_a_sticky_key_travels_as_metadata(client: Client, services: ScriptedServices) -> None:
    services.on("Classify", vision_service_pb2.ClassifyResponse())
    client.classify("flowers", [b"x"], sticky_key="user-7")
    client.classify("flowers", [b"x"])
    keys = [metadata.get("x-enxerto-sticky-key") for name, _, metadata in services.calls if name == "Classify"]
    assert keys == ["user-7", None]


def test_a_deployment_may_share_replicas(client: Client, services: ScriptedServices) -> None:
    services.on("CreateDeployment", lambda request, _context: request.deployment)
    deployed = client.deploy("flowers", "flowers@3", placement="shared", wait=False)
    (request,) = services.requests("CreateDeployment")
    assert request.deployment.placement == deployment_pb2.Deployment.PLACEMENT_SHARED
    assert deployed.settings["placement"] == "SHARED"
