"""A job's log: one immutable object an entry, so that it works on a local folder and on S3 alike.

Entries of one attempt are numbered from 1 without gaps. The reader asks for the next number: no listing, and a reader
that comes back after a crash misses and repeats nothing.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
from obstore.store import ObjectStore

from enxerto.kernel.errors import DataLossError
from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import StoredBlobs, event_key, put, result_key, store_errors
from enxerto.training.domain import JobBody, JobEvent, TrainingResult

_READ_AHEAD = 32
_MAX_READ = 512
_CHUNK_BYTES = 2**20


class EventLogWriter:
    """Appends to one attempt's log. Blocking; several writers may follow one another, as when a worker is replaced."""

    def __init__(self, store: ObjectStore, uid: str, attempt: int) -> None:
        self._store = store
        self._uid = uid
        self._attempt = attempt
        self._next = 1

    def append(self, body: JobBody) -> int:
        """Write one entry and return its number."""
        value = {"time": datetime.now(UTC).isoformat(), "body": codec.body_to_json(body)}
        data = json.dumps(value).encode()
        while not self._create(self._next, data):
            # An earlier writer of this attempt got this far, or another one is faster.
            self._next = self._free_after(self._next)
        self._next += 1
        return self._next - 1

    def _create(self, seq: int, data: bytes) -> bool:
        key = event_key(self._uid, self._attempt, seq)
        with store_errors(key):
            try:
                put(self._store, key, data, create=True)
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def _free_after(self, taken: int) -> int:
        """The first number after this one that has no entry, found in as many looks as the distance has bits, twice."""
        step = 1
        while self._exists(taken + step):
            taken += step
            step *= 2
        free = taken + step
        while free - taken > 1:
            middle = (taken + free) // 2
            if self._exists(middle):
                taken = middle
            else:
                free = middle
        return free

    def _exists(self, seq: int) -> bool:
        key = event_key(self._uid, self._attempt, seq)
        with store_errors(key):
            try:
                obstore.head(self._store, key)
            except FileNotFoundError:
                return False
        return True


class ObjectJobOutput:
    """A `JobOutput` on an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read_events(self, uid: str, attempt: int, after_seq: int) -> Sequence[JobEvent]:
        """Log entries after a position, in order, at most a few hundred at once."""
        found: list[JobEvent] = []
        window = 1
        while len(found) < _MAX_READ:
            start = after_seq + len(found) + 1
            read = await asyncio.gather(*(self._read(uid, attempt, seq) for seq in range(start, start + window)))
            whole = list(itertools.takewhile(lambda event: event is not None, read))
            found.extend(event for event in whole if event is not None)
            if len(whole) < window:
                break
            window = _READ_AHEAD
        return found

    async def _read(self, uid: str, attempt: int, seq: int) -> JobEvent | None:
        key = event_key(uid, attempt, seq)
        with store_errors(key):
            try:
                data = bytes(await (await obstore.get_async(self._store, key)).bytes_async())
            except FileNotFoundError:
                return None
        try:
            value = json.loads(data)
            return JobEvent(seq, datetime.fromisoformat(value["time"]), codec.job_body(value["body"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataLossError(f"the log entry {key} cannot be read: {error}") from error

    async def read_result(self, uid: str, attempt: int) -> TrainingResult:
        """The finished job's result."""
        key = result_key(uid, attempt)
        with store_errors(key):
            data = bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        try:
            return codec.result_from_json(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise DataLossError(f"the result {key} cannot be read: {error}") from error

    async def read_answer(self, uid: str, attempt: int) -> Mapping[str, Any] | None:
        """What an inquiry's job has answered."""
        key = result_key(uid, attempt)
        with store_errors(key):
            try:
                data = bytes(await (await obstore.get_async(self._store, key)).bytes_async())
            except FileNotFoundError:
                return None
        try:
            value = json.loads(data)
            if not isinstance(value, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise DataLossError(f"the answer {key} cannot be read: {error}") from error
        return value

    def read_blob(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes of a stored file, at most 1 MiB at once."""
        # A stream needs no folder for local copies.
        return StoredBlobs(self._store, Path()).stream(sha256, _CHUNK_BYTES)
