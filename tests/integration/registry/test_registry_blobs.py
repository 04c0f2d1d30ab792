"""Uploads and downloads through the front door."""

import asyncio
import hashlib
import os
import resource
from pathlib import Path
from typing import Any

import grpc
import pytest

from enxerto.registry.v1 import registry_service_pb2 as pb
from grpc_details import FailedCall, failed_call
from registry_requests import PROJECT, streamed, upload_messages

MIB = 2**20


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def refused(call: Any) -> FailedCall:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failed_call(caught.value)


async def upload(registry: Any, data: bytes, **others: Any) -> Any:
    return await registry.stub.UploadBlob(streamed(upload_messages(data, **others)))


async def collect(registry: Any, sha256: str, messages: list[pb.DownloadBlobResponse], parent: str = PROJECT) -> None:
    async for message in registry.stub.DownloadBlob(pb.DownloadBlobRequest(parent=parent, sha256=sha256)):
        messages.append(message)


async def download(registry: Any, sha256: str, parent: str = PROJECT) -> bytes:
    messages: list[pb.DownloadBlobResponse] = []
    await collect(registry, sha256, messages, parent)
    data = b"".join(message.chunk for message in messages)
    assert [message.size_bytes for message in messages] == [len(data)] + [0] * (len(messages) - 1)
    assert all(len(message.chunk) <= MIB for message in messages)
    return data


def stored(registry: Any) -> list[Path]:
    return sorted((registry.home / "registry" / "objects" / "blobs").iterdir())


@pytest.mark.parametrize("size", [0, 1, MIB + 1, 9 * MIB])
async def test_bytes_come_back(registry: Any, size: int) -> None:
    data = os.urandom(size)
    answer = await upload(registry, data)
    assert (answer.sha256, answer.size_bytes) == (digest_of(data), size)
    assert await download(registry, digest_of(data)) == data
    assert registry.metric('enxerto_registry_blob_bytes_total{direction="received"}') == size
    assert registry.metric('enxerto_registry_blob_bytes_total{direction="sent"}') == size
    assert registry.metric('enxerto_registry_uploads_total{outcome="stored"}') == 1


@pytest.mark.parametrize("size", [3, 9 * MIB])
async def test_other_bytes_than_declared_are_refused_and_leave_nothing(registry: Any, size: int) -> None:
    data = os.urandom(size)
    call = await refused(upload(registry, data, sha256="a" * 64))
    assert call.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(call.violations) == {"header.sha256"}
    assert digest_of(data) in call.violations["header.sha256"]

    call = await refused(upload(registry, data, size_bytes=size + 1))
    assert set(call.violations) == {"header.size_bytes"}
    call = await refused(upload(registry, data, size_bytes=size - 1))
    assert set(call.violations) == {"header.size_bytes"}
    call = await refused(upload(registry, data, size_bytes=size + 1, sha256="a" * 64))
    assert set(call.violations) == {"header.size_bytes", "header.sha256"}

    assert stored(registry) == []
    for sha256 in (digest_of(data), "a" * 64):
        call = await refused(download(registry, sha256))
        assert (call.code, call.reason) == (grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND")
    assert registry.metric('enxerto_registry_uploads_total{outcome="discarded"}') == 4


async def test_messages_out_of_order_are_refused(registry: Any) -> None:
    chunk = pb.UploadBlobRequest(chunk=b"x")
    header = next(upload_messages(b"xx"))
    big = pb.UploadBlobRequest(chunk=bytes(MIB + 1))
    header_of_big = next(upload_messages(big.chunk))
    cases: list[tuple[list[pb.UploadBlobRequest], str]] = [
        ([], "header"),
        ([chunk], "header"),
        ([pb.UploadBlobRequest()], "header"),
        ([header, header], "chunk"),
        ([header, chunk, pb.UploadBlobRequest()], "chunk"),
        ([header_of_big, big], "chunk"),
    ]
    for messages, field in cases:
        call = await refused(registry.stub.UploadBlob(streamed(iter(messages))))
        assert (call.code, set(call.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {field})
    bad = pb.UploadBlobRequest(header=pb.BlobHeader(parent="x", sha256="A" * 64, size_bytes=-1))
    call = await refused(registry.stub.UploadBlob(streamed(iter([bad]))))
    assert set(call.violations) == {"header.parent", "header.sha256", "header.size_bytes"}
    call = await refused(download(registry, "A" * 64, parent="projects/"))
    assert set(call.violations) == {"parent", "sha256"}
    assert stored(registry) == []


async def test_limits_are_told(start: Any) -> None:
    async with start(max_blob_bytes=10) as registry:
        call = await refused(upload(registry, bytes(11)))
        assert set(call.violations) == {"header.size_bytes"}
        await upload(registry, bytes(10))
    async with start(min_free_bytes=2**60) as registry:
        call = await refused(upload(registry, b"x"))
        assert (call.code, call.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
        assert call.retry_after_s == 60


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
async def test_an_upload_that_stops_half_way_leaves_nothing(registry: Any, ending: str) -> None:
    data = os.urandom(20 * MIB)

    async def half() -> Any:
        for index, message in enumerate(upload_messages(data)):
            if index > 12:
                await asyncio.Event().wait()
            yield message

    call = registry.stub.UploadBlob(half(), timeout=1.0 if ending == "deadline" else None)
    while not any("#" in path.name for path in stored(registry)):
        await asyncio.sleep(0.01)
    if ending == "cancel":
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    else:
        assert (await refused(call)).code == grpc.StatusCode.DEADLINE_EXCEEDED
    while stored(registry):
        await asyncio.sleep(0.01)
    assert (await refused(download(registry, digest_of(data)))).reason == "BLOB_NOT_FOUND"
    await upload(registry, data)
    assert await download(registry, digest_of(data)) == data


async def test_the_same_bytes_at_once(registry: Any) -> None:
    data = os.urandom(10 * MIB)
    await asyncio.gather(*(upload(registry, data) for _ in range(4)))
    assert await download(registry, digest_of(data)) == data
    assert [path.name for path in stored(registry)] == [digest_of(data)]


@pytest.mark.parametrize("size", [5, 9 * MIB])
async def test_damaged_bytes_are_data_loss_and_can_be_repaired(registry: Any, size: int) -> None:
    data = os.urandom(size)
    await upload(registry, data)
    (path,) = stored(registry)
    damaged = bytearray(data)
    damaged[size // 2] ^= 1
    for content in (bytes(damaged), data[:-1], b""):
        path.write_bytes(content)
        messages: list[pb.DownloadBlobResponse] = []
        call = await refused(collect(registry, digest_of(data), messages))
        assert (call.code, call.reason) == (grpc.StatusCode.DATA_LOSS, "BLOB_CORRUPT")
        assert sum(len(message.chunk) for message in messages) < size
    path.unlink()
    assert (await refused(download(registry, digest_of(data)))).code == grpc.StatusCode.DATA_LOSS
    await upload(registry, data)
    assert await download(registry, digest_of(data)) == data


async def test_a_digest_is_no_right_to_read_another_projects_bytes(registry: Any) -> None:
    await upload(registry, b"secret")
    call = await refused(download(registry, digest_of(b"secret"), parent="projects/other"))
    assert (call.code, call.reason) == (grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND")


async def test_memory_stays_bounded(registry: Any) -> None:
    """A blob goes in and out without being held whole; client and server share this process."""
    await upload(registry, os.urandom(16 * MIB))
    size, chunk = 256 * MIB, os.urandom(MIB)
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(chunk)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    async def messages() -> Any:
        yield pb.UploadBlobRequest(header=pb.BlobHeader(parent=PROJECT, sha256=digest.hexdigest(), size_bytes=size))
        for _ in range(size // MIB):
            yield pb.UploadBlobRequest(chunk=chunk)

    await registry.stub.UploadBlob(messages())
    received = hashlib.sha256()
    request = pb.DownloadBlobRequest(parent=PROJECT, sha256=digest.hexdigest())
    async for message in registry.stub.DownloadBlob(request):
        received.update(message.chunk)
    assert received.digest() == digest.digest()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < size // 2, f"grew by {grown / MIB:.0f} MiB"


async def test_what_a_killed_process_left_is_removed_at_the_start(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "registry" / "objects" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{'a' * 64}#1").write_bytes(b"half")
    async with start(stale_upload_s=0) as registry:
        assert stored(registry) == []
