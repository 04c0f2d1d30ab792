"""What the front downloads of a version: whole, as it was registered, and no larger than it may be."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from enxerto.inference.adapters import registry_client
from enxerto.inference.adapters.registry_client import RegistryClient, open_channel
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.registry.v1 import model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.type.v1 import task_pb2
from enxerto.vision.embeddings import REFERENCE_FILE, EmbeddingReference
from enxerto.vision.onnx.golden import GOLDEN_FILE, make_golden, write_golden
from enxerto.vision.onnx.session import OnnxModel
from fakes.scripted_services import ScriptedServices, scripted_services
from fakes.tiny_onnx import TinyModel

NAME = VersionName("default", "pets", 3)
KEPT = EmbeddingReference(9, np.array([1.0, 2.0]), np.array([0.5, 0.0]), 0.25)
TINY = TinyModel()


@dataclass
class Registry:
    """A registry with one version, and the front's client of it."""

    scripted: ScriptedServices
    client: RegistryClient

    def holds(self, filename: str, content: bytes, *, sent: bytes | None = None) -> None:
        """The version's one file beside its graph; `sent` takes its place on the way."""
        version = TINY.version("0" * 64)
        version.task = task_pb2.TASK_CLASSIFICATION
        version.name, version.state = str(NAME), model_version_pb2.ModelVersion.STATE_READY
        version.artifacts.add(filename=filename, sha256=hashlib.sha256(content).hexdigest())
        self.scripted.on("GetModelVersion", version)
        self.scripted.on("DownloadBlob", lambda _request, _context: chunks(content if sent is None else sent))

    async def ask(self, filename: str) -> object:
        if filename == REFERENCE_FILE:
            return await self.client.embedding_reference(NAME)
        version = await self.client.resolve(VersionReference("default", "pets", "3"))
        return await self.client.golden(version)


def chunks(data: bytes) -> Iterator[pb.DownloadBlobResponse]:
    for start in range(0, len(data), 2**20):
        yield pb.DownloadBlobResponse(chunk=data[start : start + 2**20])


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    with scripted_services() as scripted:
        async with open_channel(scripted.address, None) as channel:
            yield Registry(scripted, RegistryClient(channel))


@pytest.fixture
def golden(tmp_path: Path) -> bytes:
    pixels = np.zeros((8, 3, TINY.size, TINY.size), np.float32)
    write_golden(make_golden(TINY.task, OnnxModel(TINY.data).run, pixels), tmp_path / GOLDEN_FILE)
    return (tmp_path / GOLDEN_FILE).read_bytes()


async def test_files_are_read_as_they_were_registered(registry: Registry, golden: bytes) -> None:
    registry.holds(REFERENCE_FILE, KEPT.to_json().encode())
    found = await registry.client.embedding_reference(NAME)
    assert found is not None
    assert found.to_json() == KEPT.to_json()
    registry.holds(GOLDEN_FILE, golden)
    replayed = await registry.client.golden(await registry.client.resolve(VersionReference("default", "pets", "3")))
    assert replayed is not None
    assert replayed.agreement(OnnxModel(TINY.data).run(replayed.images)) == 1.0


@pytest.mark.parametrize("filename", [REFERENCE_FILE, GOLDEN_FILE])
async def test_what_came_damaged_is_not_used_and_may_be_asked_for_again(
    registry: Registry, golden: bytes, filename: str
) -> None:
    content = golden if filename == GOLDEN_FILE else KEPT.to_json().encode()
    other = EmbeddingReference(9, KEPT.mean + 1, KEPT.variance, 0.25).to_json().encode()
    for sent in (other, content[:-1], b""):
        registry.holds(filename, content, sent=sent)
        with pytest.raises(RegistryUnavailableError, match="damaged") as refusal:
            await registry.ask(filename)
        assert refusal.value.retry_after_s > 0


async def test_what_is_too_large_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    large = bytes(9 * 2**20)
    registry.holds(REFERENCE_FILE, large)
    assert await registry.ask(REFERENCE_FILE) is None
    monkeypatch.setattr(registry_client, "MAX_GOLDEN_BYTES", len(large) - 1)
    registry.holds(GOLDEN_FILE, large)
    with pytest.raises(VersionNotServableError, match="more than"):
        await registry.ask(GOLDEN_FILE)


@pytest.mark.parametrize(
    ("filename", "error"), [(REFERENCE_FILE, VersionNotFoundError), (GOLDEN_FILE, VersionNotServableError)]
)
async def test_what_the_registry_lost_is_told_apart_from_a_registry_that_is_away(
    registry: Registry, filename: str, error: type[Exception]
) -> None:
    registry.holds(filename, b"x")
    registry.scripted.on("DownloadBlob", lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "gone"))
    with pytest.raises(error):
        await registry.ask(filename)
    registry.scripted.on("DownloadBlob", lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away"))
    with pytest.raises(RegistryUnavailableError, match="UNAVAILABLE"):
        await registry.ask(filename)
