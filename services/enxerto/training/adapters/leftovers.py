"""What is left of bytes that were received, in the blob store and in the scratch folder, and of logs."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import ObjectStore

from enxerto.training.adapters.object_store import events_prefix, incoming_key, store_errors, upload_key
from enxerto.training.ports import Upload

if TYPE_CHECKING:
    # A type of the stub alone.
    from obstore import ObjectMeta

_DELETED_AT_ONCE = 32


class StoredLeftovers:
    """A `Leftovers`.

    Args:
        store: where archives and weights are received.
        scratch: folder where they are before they are whole, and where imports are unpacked.
    """

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch

    async def old_uploads(self, before: datetime) -> Sequence[Upload]:
        """Archives that were uploaded, last, before then."""
        prefix = upload_key("", "").split("/", 1)[0]
        parts = [str(one["path"]).split("/") async for one in self._old(prefix, before)]
        return [Upload(project, sha256) for _, project, sha256 in (part for part in parts if len(part) == 3)]

    async def delete_upload(self, upload: Upload, before: datetime) -> bool:
        """Delete an archive, unless it has come again since."""
        key = upload_key(upload.project, upload.sha256)
        with store_errors(key):
            try:
                found = await obstore.head_async(self._store, key)
                if found["last_modified"] >= before:
                    return False
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                return False
        return True

    async def delete_received_weights(self, before: datetime) -> int:
        """Delete weights received before then."""
        prefix = incoming_key("").rstrip("/")
        keys = [str(one["path"]) async for one in self._old(prefix, before)]
        for key in keys:
            await self._delete(key)
        return len(keys)

    async def delete_log(self, uid: str) -> int:
        """Delete every entry of every attempt's log of a run."""
        prefix, deleted = events_prefix(uid), 0
        with store_errors(prefix):
            async for part in obstore.list(self._store, prefix=prefix, chunk_size=_DELETED_AT_ONCE):
                await asyncio.gather(*(self._delete(str(one["path"])) for one in part))
                deleted += len(part)
        return deleted

    async def _delete(self, key: str) -> None:
        with store_errors(key), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def clear_scratch(self, before: datetime) -> int:
        """Delete folders in the scratch folder in which nothing was written since."""
        return await asyncio.to_thread(self._clear_scratch, before)

    def _clear_scratch(self, before: datetime) -> int:
        if not self._scratch.is_dir():
            return 0
        old = [one for one in self._scratch.iterdir() if one.is_dir() and _is_old(one, before)]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    async def _old(self, prefix: str, before: datetime) -> "AsyncIterator[ObjectMeta]":
        with store_errors(prefix):
            async for part in obstore.list(self._store, prefix=prefix):
                for one in part:
                    if one["last_modified"] < before:
                        yield one


def _is_old(folder: Path, before: datetime) -> bool:
    """Whether nothing in it was written since; a folder that changes while it is looked at is in use."""
    try:
        return all(path.lstat().st_mtime < before.timestamp() for path in (folder, *folder.rglob("*")))
    except OSError:
        return False
