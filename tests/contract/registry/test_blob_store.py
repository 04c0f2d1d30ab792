"""What the `BlobStore` promises on a local folder and on S3."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from enxerto.registry.adapters.object_store import ObjectBlobStore, open_blob_store
from enxerto.registry.errors import BlobCorruptError, StorageUnavailableError
from enxerto.runtime.errors import StartupError
from flushes import Flush
from servers import S3Server

MIB = 2**20


class Place:
    """A blob store and a look behind it."""

    def __init__(
        self,
        blobs: ObjectBlobStore,
        leftovers: Callable[[], int],
        damage: Callable[[str, bytes], None],
        parts: Callable[[], int] | None = None,
    ) -> None:
        self.blobs = blobs
        self._parts = parts
        self.leftovers = leftovers
        self.damage = damage

    async def parts_arrived(self, count: int) -> None:
        """S3 itself promises nothing for a part that is on its way while its upload is aborted."""
        while self._parts and self._parts() < count:
            await asyncio.sleep(0.02)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        folder = tmp_path / "with space" / "objects"
        url = folder.as_uri()

        def damage(sha256: str, data: bytes) -> None:
            (folder / "blobs" / sha256).write_bytes(data)

        return Place(open_blob_store(url), lambda: sum("#" in path.name for path in folder.rglob("*")), damage)
    s3: S3Server = request.getfixturevalue("s3")
    store = request.getfixturevalue("s3_store")
    blobs = open_blob_store(
        request.getfixturevalue("s3_url"),
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )
    return Place(
        blobs,
        lambda: len(s3.unfinished_uploads("enxerto")),
        lambda sha256, data: store.put(f"blobs/{sha256}", data),
        lambda: sum(s3.unfinished_uploads("enxerto").values()),
    )


async def pieces(data: bytes, size: int = MIB) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def whole(blobs: ObjectBlobStore, sha256: str, size_bytes: int) -> bytes:
    chunks = [chunk async for chunk in blobs.read(sha256, size_bytes)]
    assert all(0 < len(chunk) <= MIB for chunk in chunks)
    return b"".join(chunks)


async def is_there(blobs: ObjectBlobStore, sha256: str, size_bytes: int) -> bool:
    try:
        return len(await whole(blobs, sha256, size_bytes)) == size_bytes
    except BlobCorruptError:
        return False


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, MIB, 8 * MIB, 8 * MIB + 1, 20 * MIB + 7])
async def test_bytes_come_back(place: Place, size: int) -> None:
    data = os.urandom(size)
    await place.blobs.put(digest_of(data), size, pieces(data))
    assert await whole(place.blobs, digest_of(data), size) == data
    assert place.leftovers() == 0


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
async def test_a_source_that_fails_leaves_nothing(place: Place, size: int) -> None:
    data = os.urandom(size)

    async def failing() -> AsyncIterator[bytes]:
        async for piece in pieces(data):
            yield piece
        await place.parts_arrived(size // (8 * MIB))
        raise LookupError("the last check failed")

    with pytest.raises(LookupError, match="the last check failed"):
        await place.blobs.put(digest_of(data), size, failing())
    assert not await is_there(place.blobs, digest_of(data), size)
    assert place.leftovers() == 0


@pytest.mark.parametrize("size", [MIB, 40 * MIB])
async def test_a_caller_that_goes_away_leaves_nothing(place: Place, size: int) -> None:
    sent = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        for _ in range(size // MIB // 2):
            yield bytes(MIB)
        sent.set()
        await asyncio.Event().wait()

    upload = asyncio.ensure_future(place.blobs.put("a" * 64, size, stalling()))
    await sent.wait()
    await place.parts_arrived(size // 2 // (8 * MIB))
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert not await is_there(place.blobs, "a" * 64, size)
    assert place.leftovers() == 0


async def test_the_same_bytes_at_once(place: Place) -> None:
    data = os.urandom(12 * MIB)
    await asyncio.gather(*(place.blobs.put(digest_of(data), len(data), pieces(data)) for _ in range(4)))
    assert await whole(place.blobs, digest_of(data), len(data)) == data
    assert place.leftovers() == 0


async def test_an_overwrite_replaces_damaged_bytes(place: Place) -> None:
    data = os.urandom(MIB)
    await place.blobs.put(digest_of(data), len(data), pieces(data))
    place.damage(digest_of(data), bytes(MIB))
    assert await whole(place.blobs, digest_of(data), len(data)) == bytes(MIB)
    await place.blobs.put(digest_of(data), len(data), pieces(data))
    assert await whole(place.blobs, digest_of(data), len(data)) == data


async def test_bytes_that_are_gone_or_of_another_size_are_corrupt(place: Place) -> None:
    with pytest.raises(BlobCorruptError, match="gone"):
        await whole(place.blobs, "b" * 64, 10)
    place.damage("c" * 64, b"short")
    with pytest.raises(BlobCorruptError, match="5 bytes are stored instead of 10"):
        await whole(place.blobs, "c" * 64, 10)


async def test_free_room_is_known_for_a_folder_only(place: Place) -> None:
    free = await place.blobs.free_bytes()
    assert free is None or free > 0


async def test_sweep_removes_old_half_written_files_only(tmp_path: Path) -> None:
    blobs = open_blob_store(tmp_path.as_uri())
    folder = tmp_path / "blobs"
    old, fresh, kept = folder / f"{'a' * 64}#1", folder / f"{'b' * 64}#2", folder / ("c" * 64)
    for path in (old, fresh, kept):
        path.write_bytes(b"x")
    hour_ago = time.time() - 3600
    for path in (old, kept):
        os.utime(path, (hour_ago, hour_ago))
    assert await blobs.sweep(older_than_s=1800) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted([fresh.name, kept.name])
    assert await blobs.sweep(older_than_s=0) == 1


async def test_an_upload_that_ends_during_a_sweep_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blob_store(tmp_path.as_uri())
    for letter in "ab":
        (tmp_path / "blobs" / f"{letter * 64}#1").write_bytes(b"half")
    stat = Path.stat

    def first_is_gone(path: Path, **options: bool) -> os.stat_result:
        path.unlink()
        monkeypatch.setattr(Path, "stat", stat)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", first_is_gone)
    assert await blobs.sweep(older_than_s=0) == 1


async def test_a_store_that_is_away_is_unavailable() -> None:
    blobs = open_blob_store(
        "s3://bucket",
        endpoint="http://127.0.0.1:9",
        region="x",
        access_key_id="k",
        secret_access_key="s",
        max_retries=0,
    )
    with pytest.raises(StorageUnavailableError):
        await blobs.put(digest_of(b"x"), 1, pieces(b"x"))
    with pytest.raises(StorageUnavailableError):
        await whole(blobs, digest_of(b"x"), 1)


async def test_wrong_credentials_are_unavailable_and_not_told(s3: S3Server) -> None:
    blobs = open_blob_store(
        "s3://enxerto/p",
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id="wrong",
        secret_access_key="wrong-secret",
    )
    with pytest.raises(StorageUnavailableError) as caught:
        await blobs.put(digest_of(b"x"), 1, pieces(b"x"))
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("size", [100, 9 * MIB])
async def test_a_blob_in_a_folder_is_on_the_disk_before_anything_can_refer_to_it(
    tmp_path: Path, flushes: list[Flush], size: int
) -> None:
    blobs, content = open_blob_store(tmp_path.as_uri()), b"x" * size
    folder, name = tmp_path / "blobs", digest_of(content)
    await blobs.put(name, size, pieces(content))
    written, named = flushes
    assert written.target.parent == folder
    assert written.names == {written.target.name} != {name}
    assert named == Flush(folder, {name})
    assert (folder / name).read_bytes() == content


async def test_a_blob_that_is_written_again_stays_until_the_new_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, name = open_blob_store(tmp_path.as_uri()), digest_of(b"whole")
    await blobs.put(name, 5, pieces(b"whole"))
    seen: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: seen.append((tmp_path / "blobs" / name).read_bytes()))
    await blobs.put(name, 5, pieces(b"again"))
    assert seen == [b"whole", b"again"]


def test_a_folder_that_cannot_be_made_keeps_the_service_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot open the blob store"):
        open_blob_store((tmp_path / "file" / "objects").as_uri())
