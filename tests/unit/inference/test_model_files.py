"""Model files that replicas fetch at their start, and what they start with while the registry is away."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from enxerto.inference.adapters.model_files import fetch_model
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.kernel.errors import DataLossError
from enxerto.kernel.names import VersionName
from enxerto.registry.v1 import model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from fakes.scripted_services import ScriptedServices, scripted_services

NAME = VersionName("default", "pets", 3)
CONTENT = b"the graph"
Fetch = Callable[[], Path]


@pytest.fixture
def registry() -> Iterator[ScriptedServices]:
    with scripted_services() as scripted:
        version = model_version_pb2.ModelVersion(name=str(NAME), state=model_version_pb2.ModelVersion.STATE_READY)
        version.artifacts.add(role=model_version_pb2.Artifact.ROLE_MODEL, sha256=hashlib.sha256(CONTENT).hexdigest())
        scripted.on("GetModelVersion", version)
        scripted.on("DownloadBlob", lambda _request, _context: iter([pb.DownloadBlobResponse(chunk=CONTENT)]))
        yield scripted


@pytest.fixture
def fetch(registry: ScriptedServices, tmp_path: Path) -> Fetch:
    return lambda: fetch_model(NAME, registry.address, None, tmp_path / "models")


def answers(registry: ScriptedServices, code: grpc.StatusCode) -> None:
    registry.on("GetModelVersion", lambda _request, context: context.abort(code, "no"))


def test_a_file_is_fetched_once(registry: ScriptedServices, fetch: Fetch) -> None:
    assert fetch().read_bytes() == CONTENT
    assert fetch().read_bytes() == CONTENT
    assert len(registry.requests("DownloadBlob")) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_what_was_fetched_is_used_while_the_registry_is_away(
    registry: ScriptedServices, fetch: Fetch, code: grpc.StatusCode
) -> None:
    fetched = fetch()
    answers(registry, code)
    assert fetch() == fetched
    fetched.unlink()
    with pytest.raises(RegistryUnavailableError):
        fetch()


def test_what_was_fetched_for_another_version_or_from_another_registry_is_not_used(
    registry: ScriptedServices, fetch: Fetch, tmp_path: Path
) -> None:
    fetch()
    answers(registry, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(RegistryUnavailableError):
        fetch_model(VersionName("default", "pets", 4), registry.address, None, tmp_path / "models")
    with scripted_services() as other:
        answers(other, grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(RegistryUnavailableError):
            fetch_model(NAME, other.address, None, tmp_path / "models")


def test_what_the_registry_refuses_is_refused_though_it_was_fetched(registry: ScriptedServices, fetch: Fetch) -> None:
    fetch()
    version = model_version_pb2.ModelVersion(name=str(NAME), state=model_version_pb2.ModelVersion.STATE_QUARANTINED)
    registry.on("GetModelVersion", version)
    with pytest.raises(VersionNotServableError):
        fetch()
    answers(registry, grpc.StatusCode.NOT_FOUND)
    with pytest.raises(VersionNotFoundError):
        fetch()


def test_what_comes_damaged_is_not_kept(registry: ScriptedServices, fetch: Fetch, tmp_path: Path) -> None:
    registry.on("DownloadBlob", lambda _request, _context: iter([pb.DownloadBlobResponse(chunk=b"the graf")]))
    with pytest.raises(DataLossError):
        fetch()
    assert not list((tmp_path / "models").iterdir())
