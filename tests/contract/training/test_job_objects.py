"""What jobs leave in the blob store, on a local folder and on S3."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta

import obstore
import pytest

from enxerto.kernel.errors import DataLossError
from enxerto.training.adapters import codec, event_log
from enxerto.training.adapters.event_log import EventLogWriter, ObjectJobOutput
from enxerto.training.adapters.leftovers import StoredLeftovers
from enxerto.training.adapters.object_store import (
    ObjectUploadStore,
    StoredBlobs,
    blob_key,
    event_key,
    incoming_key,
    open_store,
    put,
    result_key,
    upload_key,
)
from enxerto.training.domain import EpochCompleted, JobFailed, JobStarted, JobTrained, LogLine, Progress
from enxerto.training.ports import Upload
from fakes.training_values import a_result


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/objects")
    return request.getfixturevalue("s3_store")


async def test_a_log_is_read_back_in_order_from_any_position(store):
    writer = EventLogWriter(store, "u1", 1)
    bodies = [JobStarted(), *(LogLine("INFO", str(number)) for number in range(70)), JobFailed(b"\x08\x0d")]
    for body in bodies:
        await asyncio.to_thread(writer.append, body)
    output = ObjectJobOutput(store)
    read = await output.read_events("u1", 1, 0)
    assert [event.body for event in read] == bodies
    assert [event.seq for event in read] == list(range(1, len(bodies) + 1))
    assert all(event.time.tzinfo for event in read)
    assert [event.body for event in await output.read_events("u1", 1, 70)] == bodies[70:]
    assert await output.read_events("u1", 1, len(bodies)) == []
    assert await output.read_events("u1", 2, 0) == []


async def test_a_second_writer_goes_on_where_the_first_stopped(store):
    first, second = EventLogWriter(store, "u1", 1), EventLogWriter(store, "u1", 1)
    assert [first.append(JobStarted()), second.append(Progress("head")), first.append(JobTrained())] == [1, 2, 3]
    read = await ObjectJobOutput(store).read_events("u1", 1, 0)
    assert [event.body for event in read] == [JobStarted(), Progress("head"), JobTrained()]


@pytest.mark.parametrize("written", [1, 2, 3, 7, 64, 65, 100])
async def test_a_replaced_writer_finds_the_end_of_a_log_of_any_length(tmp_path, written):
    store = open_store(f"file://{tmp_path}/objects")
    for seq in range(1, written + 1):
        obstore.put(store, event_key("u1", 1, seq), b"{}")
    writer = EventLogWriter(store, "u1", 1)
    assert [writer.append(JobStarted()), writer.append(JobTrained())] == [written + 1, written + 2]


def test_a_replaced_writer_looks_at_few_entries_of_a_long_log(tmp_path, monkeypatch):
    store = open_store(f"file://{tmp_path}/objects")
    for seq in range(1, 1001):
        obstore.put(store, event_key("u1", 1, seq), b"{}")
    asked = []

    def counted(call):
        return lambda *arguments, **named: asked.append(arguments) or call(*arguments, **named)

    monkeypatch.setattr(event_log.obstore, "head", counted(obstore.head))
    monkeypatch.setattr(event_log, "put", counted(put))
    assert EventLogWriter(store, "u1", 1).append(JobFailed(b"")) == 1001
    assert len(asked) < 25


async def test_the_logs_of_all_attempts_of_a_run_are_deleted_and_nothing_else_is(store, tmp_path):
    kept = [event_key("u11", 1, 1), result_key("u1", 1)]
    for key in (*kept, event_key("u1", 2, 1), *(event_key("u1", 1, seq) for seq in range(1, 100))):
        obstore.put(store, key, b"{}")
    leftovers = StoredLeftovers(store, tmp_path / "no-scratch")
    assert await leftovers.delete_log("u1") == 100
    assert await leftovers.delete_log("u1") == 0
    assert await ObjectJobOutput(store).read_events("u1", 1, 0) == []
    for key in kept:
        assert obstore.head(store, key)["size"] == 2


async def test_what_a_newer_worker_says_beside_is_left_out(store):
    epoch = EpochCompleted(Progress("head", 1, 2), (), 1e-3)
    EventLogWriter(store, "u1", 1).append(epoch)
    written = json.loads(bytes(obstore.get(store, event_key("u1", 1, 1)).bytes()))
    body = written["body"]
    body["progress"]["of_tomorrow"] = body["of_tomorrow"] = 1
    obstore.put(store, event_key("u1", 1, 1), json.dumps(written).encode())
    assert [event.body for event in await ObjectJobOutput(store).read_events("u1", 1, 0)] == [epoch]


async def test_a_damaged_entry_is_reported(store):
    obstore.put(store, event_key("u1", 1, 1), b"{}")
    with pytest.raises(DataLossError, match="00000001"):
        await ObjectJobOutput(store).read_events("u1", 1, 0)


async def test_a_result_comes_back_as_it_was_and_a_missing_one_is_lost_data(store):
    output = ObjectJobOutput(store)
    with pytest.raises(DataLossError):
        await output.read_result("u1", 1)
    obstore.put(store, result_key("u1", 1), json.dumps(codec.result_to_json(a_result())).encode())
    assert await output.read_result("u1", 1) == a_result()


async def test_a_blob_is_stored_once_and_read_by_its_digest(store, tmp_path):
    blobs = StoredBlobs(store, tmp_path / "cache")
    digest = await asyncio.to_thread(blobs.put, b"hello" * 1000)
    assert digest == hashlib.sha256(b"hello" * 1000).hexdigest()
    (tmp_path / "file").write_bytes(b"hello" * 1000)
    assert blobs.put(tmp_path / "file") == digest
    with blobs.open(digest) as path:
        assert path.read_bytes() == b"hello" * 1000
    parts = [part async for part in blobs.stream(digest, 1024)]
    assert b"".join(parts) == b"hello" * 1000
    assert max(map(len, parts)) <= 1024
    with pytest.raises(DataLossError), blobs.open("0" * 64):
        pass


async def test_a_blob_that_was_damaged_on_the_way_is_refused(request, tmp_path):
    store = request.getfixturevalue("s3_store")
    digest = hashlib.sha256(b"good").hexdigest()
    obstore.put(store, blob_key(digest), b"evil")
    with pytest.raises(DataLossError), StoredBlobs(store, tmp_path / "cache").open(digest):
        pass
    assert list((tmp_path / "cache").iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_nothing(store, tmp_path):
    uploads = ObjectUploadStore(store, tmp_path / "scratch")

    async def chunks(fail):
        yield b"a" * 10
        if fail:
            raise ConnectionResetError
        yield b"b"

    with pytest.raises(ConnectionResetError):
        await uploads.put("default", "ab" * 32, chunks(fail=True))
    with pytest.raises(FileNotFoundError):
        obstore.head(store, upload_key("default", "ab" * 32))
    await uploads.put("default", "ab" * 32, chunks(fail=False))
    assert bytes(obstore.get(store, upload_key("default", "ab" * 32)).bytes()) == b"a" * 10 + b"b"
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_what_was_received_is_cleared_by_its_age_and_nothing_else_is(store, tmp_path):
    leftovers = StoredLeftovers(store, tmp_path / "no-scratch")
    upload, others = Upload("leftovers", "cd" * 32), [blob_key("ef" * 32), result_key("u9", 1)]
    keys = [upload_key(upload.project, upload.sha256), incoming_key("ef" * 32)]
    for key in (*keys, *others):
        obstore.put(store, key, b"bytes")
    now = datetime.now(UTC)
    earlier, later = now - timedelta(hours=1), now + timedelta(hours=1)
    assert upload not in await leftovers.old_uploads(earlier)
    assert not await leftovers.delete_upload(upload, earlier)
    assert await leftovers.delete_received_weights(earlier) == 0
    assert upload in await leftovers.old_uploads(later)
    assert await leftovers.delete_upload(upload, later)
    assert not await leftovers.delete_upload(upload, later)
    assert await leftovers.delete_received_weights(later) >= 1
    assert await leftovers.clear_scratch(later) == 0
    for key in keys:
        with pytest.raises(FileNotFoundError):
            obstore.head(store, key)
    for key in others:
        assert obstore.head(store, key)["size"] == 5
