import io
import os
import tarfile
from pathlib import Path

import pytest

from enxerto.client import Client, FailedPreconditionError, ImportFailedError
from enxerto.client._archive import CHUNK_BYTES, Archive
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from fakes.scripted_services import ScriptedServices, refuse

SNAPSHOT = "projects/default/datasets/flowers/snapshots/1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("rose/1.png", b"one"), ("rose/2.png", b"x" * (3 * CHUNK_BYTES + 7)), ("tulip/1.png", b"")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "photos" / "empty").mkdir()
    return tmp_path / "photos"


def test_a_folder_becomes_the_same_tar_each_time(folder: Path) -> None:
    archive = Archive(folder)
    before = archive.measure()
    os.utime(folder / "rose" / "1.png", (1, 1))
    assert archive.measure() == before
    chunks = list(archive.chunks())
    assert max(map(len, chunks)) == CHUNK_BYTES
    assert sum(map(len, chunks)) == before[1]
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.getnames() == ["empty", "rose", "rose/1.png", "rose/2.png", "tulip", "tulip/1.png"]
        extracted = tar.extractfile("rose/2.png")
        assert extracted is not None
        assert extracted.read() == (folder / "rose" / "2.png").read_bytes()


def test_a_link_back_into_the_folder_ends(folder: Path) -> None:
    (folder / "rose" / "loop").symlink_to(folder)
    chunks = b"".join(Archive(folder).chunks())
    with tarfile.open(fileobj=io.BytesIO(chunks)) as tar:
        assert "rose/loop/rose/1.png" not in tar.getnames()


def prepare(services: ScriptedServices, snapshot: dataset_pb2.Snapshot) -> None:
    services.on("CreateDataset", lambda _request, context: refuse(context, "ALREADY_EXISTS", "there"))
    services.on("GetDataset", dataset_pb2.Dataset(name="projects/default/datasets/flowers"))
    services.on("UploadArchive", dataset_service_pb2.UploadArchiveResponse(upload="projects/default/uploads/abc"))
    services.on("CreateSnapshot", dataset_pb2.Snapshot(name=SNAPSHOT, state=dataset_pb2.Snapshot.STATE_IMPORTING))
    services.on("GetSnapshot", snapshot)


def test_import_uploads_what_it_announced(client: Client, services: ScriptedServices, folder: Path) -> None:
    ready = dataset_pb2.Snapshot(name=SNAPSHOT, state=dataset_pb2.Snapshot.STATE_READY, class_names=["rose", "tulip"])
    prepare(services, ready)
    told: list[tuple[int, int]] = []
    snapshot = client.import_dataset("flowers", folder, uploaded=lambda sent, total: told.append((sent, total)))
    assert snapshot.class_names == ("rose", "tulip")
    (messages,) = services.requests("UploadArchive")
    sent = b"".join(message.chunk for message in messages[1:])
    assert (messages[0].header.size_bytes, messages[0].header.sha256) == (len(sent), Archive(folder).measure()[0])
    assert told[-1] == (len(sent), len(sent))
    assert services.requests("CreateSnapshot")[0].snapshot.source.upload == "projects/default/uploads/abc"


def test_a_failed_import_names_every_file(client: Client, services: ScriptedServices, folder: Path) -> None:
    failed = dataset_pb2.Snapshot(name=SNAPSHOT, state=dataset_pb2.Snapshot.STATE_FAILED, finding_count=2)
    failed.error.code, failed.error.message = 3, "2 bad files"
    for path in ("rose/1.png", "tulip/1.png"):
        failed.findings.add(severity=dataset_pb2.Finding.SEVERITY_ERROR, path=path, code="CORRUPT_IMAGE", message="bad")
    prepare(services, failed)
    with pytest.raises(ImportFailedError, match="2 bad files") as caught:
        client.import_dataset("flowers", folder)
    assert [(finding.severity, finding.path) for finding in caught.value.findings] == [
        ("ERROR", "rose/1.png"),
        ("ERROR", "tulip/1.png"),
    ]


def test_a_path_on_the_service_is_not_uploaded(client: Client, services: ScriptedServices) -> None:
    prepare(services, dataset_pb2.Snapshot(name=SNAPSHOT, state=dataset_pb2.Snapshot.STATE_READY))
    client.import_dataset("flowers", "/data/flowers", server_side=True)
    assert services.requests("CreateSnapshot")[0].snapshot.source.path == "/data/flowers"
    assert not services.requests("UploadArchive")


def test_training_on_a_dataset_without_snapshot_is_refused(client: Client, services: ScriptedServices) -> None:
    services.on("GetDataset", dataset_pb2.Dataset(name="projects/default/datasets/flowers"))
    with pytest.raises(FailedPreconditionError, match="no snapshot"):
        client.train("flowers", model="flowers")
