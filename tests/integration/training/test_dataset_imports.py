"""Good and bad data through the front door."""

import io
import signal
import struct
import tarfile
import uuid
import zipfile
import zlib
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from training_calls import create_dataset, import_folder, imported, refusal, start_import, upload

READY, FAILED = dataset_pb2.Snapshot.STATE_READY, dataset_pb2.Snapshot.STATE_FAILED


def write_images(folder: Path, classes=("cat", "dog"), count=6) -> Path:
    generator = np.random.default_rng(7)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for path in sorted(folder.rglob("*.png")):
            bundle.write(path, path.relative_to(folder))
    return buffer.getvalue()


@pytest.fixture
def datasets(service):
    with service.stubs() as (stub, _):
        yield stub


@pytest.fixture
def dataset(datasets):
    return create_dataset(datasets, f"d-{uuid.uuid4().hex[:12]}")


def objects(service) -> set[Path]:
    return {path for path in (service.folder / "objects" / "blobs").glob("*") if path.is_file()}


def test_the_same_content_has_the_same_digest_and_is_stored_once(service, datasets, dataset, folder):
    write_images(folder)
    first = import_folder(datasets, dataset, folder)
    assert first.state == READY, first.error
    stored = objects(service)
    second = imported(datasets, start_import(datasets, dataset, upload=upload(datasets, archive(folder))).name)
    assert (second.state, second.digest) == (READY, first.digest)
    assert objects(service) == stored
    assert list(first.class_names) == ["cat", "dog"]
    assert sum(first.split_counts.values()) == 12
    latest = datasets.GetDataset(dataset_service_pb2.GetDatasetRequest(name=dataset)).latest_snapshot
    assert latest == second.name == f"{dataset}/snapshots/2"


def test_every_readable_kind_of_image_is_imported(datasets, dataset, folder):
    write_images(folder)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    picture.convert("L").save(folder / "cat" / "gray.png")
    picture.convert("P").save(folder / "cat" / "palette.png")
    picture.convert("CMYK").save(folder / "cat" / "cmyk.jpg")
    picture.convert("RGBA").save(folder / "cat" / "rgba.png")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(folder / "cat" / "sixteen.png")
    picture.resize((1, 1)).save(folder / "cat" / "one.png")
    snapshot = import_folder(datasets, dataset, folder)
    assert snapshot.state == READY, snapshot.findings
    assert sum(snapshot.split_counts.values()) == 18


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_one_report_lists_every_bad_file_and_nothing_is_stored(service, datasets, dataset, folder):
    write_images(folder)
    good = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "corrupt.png").write_bytes(good[:40] + bytes(200))
    (folder / "cat" / "truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "dog" / "empty.png").write_bytes(b"")
    (folder / "dog" / "huge.png").write_bytes(huge_png())
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "dog" / "animated.webp", save_all=True, append_images=frames[1:])
    (folder / "dog" / "link.png").symlink_to("/etc/passwd")
    (folder / "bird").mkdir()
    before = objects(service)
    snapshot = import_folder(datasets, dataset, folder)
    bad = {"cat/corrupt.png", "cat/truncated.png", "dog/empty.png", "dog/huge.png", "dog/animated.webp"}
    bad |= {"dog/link.png", "bird"}
    assert snapshot.state == FAILED
    assert {finding.path for finding in snapshot.findings} == bad
    assert snapshot.finding_count == len(bad)
    assert snapshot.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in snapshot.error.details)
    assert {violation.field for violation in request.field_violations} == bad
    assert objects(service) == before
    assert not datasets.GetDataset(dataset_service_pb2.GetDatasetRequest(name=dataset)).latest_snapshot


def test_a_folder_with_one_class_is_refused(datasets, dataset, folder):
    write_images(folder / "data", classes=("cat",))
    snapshot = import_folder(datasets, dataset, folder / "data")
    assert (snapshot.state, snapshot.findings[0].code) == (FAILED, "TOO_FEW_CLASSES")


def tar_with(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        member.size = len(data)
        bundle.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def link() -> bytes:
    member = tarfile.TarInfo("cat/link.png")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_with(member)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("cat/zeros.png", bytes(300 * 2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (link, "LINK"),
        (lambda: tar_with(tarfile.TarInfo("../outside.png"), b"x"), "PATH_TRAVERSAL"),
        (lambda: tar_with(tarfile.TarInfo("/etc/outside.png"), b"x"), "ABSOLUTE_PATH"),
        (lambda: tar_with(tarfile.TarInfo("cat/caf\udce9.png"), b"x"), "BAD_NAME"),
        (bomb, "TOO_LARGE"),
        (lambda: b"neither tar nor zip" * 100, "UNSUPPORTED"),
    ],
    ids=["link", "traversal", "absolute", "not-utf8", "bomb", "garbage"],
)
def test_a_hostile_archive_is_refused(service, datasets, dataset, make, code):
    snapshot = imported(datasets, start_import(datasets, dataset, upload=upload(datasets, make())).name)
    assert (snapshot.state, snapshot.findings[0].code) == (FAILED, code)
    assert snapshot.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert not (service.import_root.parent / "outside.png").exists()
    assert list((service.folder / "cache" / "scratch").iterdir()) == []


def test_bytes_that_are_not_as_announced_are_refused(service, datasets):
    for changed, field in (({"sha256": "0" * 64}, "header.sha256"), ({"size": 5}, "header.size_bytes")):
        failure = refusal(upload, datasets, b"some bytes", **changed)
        assert (failure.code, set(failure.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {field})
    failure = refusal(upload, datasets, b"x", size=2**30)
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ARCHIVE_TOO_LARGE")
    assert not list((service.folder / "objects" / "uploads").rglob("0" * 64))


def test_a_message_over_the_limit_is_refused(service, datasets):
    big = dataset_pb2.Dataset(display_name="x" * (33 * 2**20))
    request = dataset_service_pb2.CreateDatasetRequest(parent="projects/default", dataset_id="big", dataset=big)
    with pytest.raises(grpc.RpcError) as caught:
        datasets.CreateDataset(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_path_outside_of_the_allowed_folders_is_refused_and_the_setting_named(datasets, dataset, folder):
    (folder / "way-out").symlink_to("/etc")
    for path in (Path("/etc"), folder / "way-out", Path(f"{folder}/../../..")):
        failure = refusal(start_import, datasets, dataset, path=path)
        assert failure.code is grpc.StatusCode.PERMISSION_DENIED
        assert "ENXERTO_TRAINING_IMPORT_ROOTS" in failure.message
    failure = refusal(start_import, datasets, dataset, path=folder / "nothing")
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    failure = refusal(start_import, datasets, dataset, path=Path("relative"))
    assert set(failure.violations) == {"snapshot.source.path"}


def test_what_is_not_there_is_not_found(datasets, dataset):
    name = f"projects/default/uploads/{'0' * 64}"
    assert refusal(start_import, datasets, dataset, upload=name).code is grpc.StatusCode.NOT_FOUND
    missing = dataset_service_pb2.GetSnapshotRequest(name=f"{dataset}/snapshots/9")
    assert refusal(datasets.GetSnapshot, missing).code is grpc.StatusCode.NOT_FOUND
    slash = dataset_service_pb2.GetDatasetRequest(name="projects/default/datasets/a/b")
    assert set(refusal(datasets.GetDataset, slash).violations) == {"name"}


def test_a_request_id_makes_an_import_repeatable(datasets, dataset, folder):
    write_images(folder)
    first = start_import(datasets, dataset, path=folder, request_id="r-1")
    assert start_import(datasets, dataset, path=folder, request_id="r-1").name == first.name
    failure = refusal(start_import, datasets, dataset, path=folder / "cat", request_id="r-1")
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert imported(datasets, first.name).state == READY


def test_an_import_survives_the_death_of_the_service(service, datasets, dataset, folder):
    write_images(folder, count=150)
    name = start_import(datasets, dataset, path=folder).name
    service.training.kill(signal.SIGKILL)
    service.training.start()
    with service.stubs() as (stub, _):
        assert imported(stub, name).state == READY
