"""A run's checkpoints in the blob store, where they outlive workers, jobs and machines."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import obstore
from obstore.store import ObjectStore
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from enxerto.kernel.errors import DataLossError
from enxerto.training.adapters.object_store import put, store_errors
from enxerto.vision.torch.recipe import Checkpoint

_META: Final = "enxerto.checkpoint"
_SUFFIX: Final = ".safetensors"


class StoredCheckpoints:
    """`Checkpoints` of one run: numbered objects, of which the last counts.

    An object is a safetensors file whose metadata hold the JSON part: a checkpoint is there as a whole or not at all.
    The one before is deleted only after the new one is stored.

    Args:
        store: the blob store.
        uid: of the run; attempts share their checkpoints.
        saved: told about every checkpoint and its size in bytes, once it is stored.
    """

    def __init__(
        self, store: ObjectStore, uid: str, saved: Callable[[Checkpoint, int], None] = lambda _one, _size: None
    ) -> None:
        self._store = store
        self._prefix = f"runs/{uid}/checkpoints/"
        self._saved = saved

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep this one instead of the one before."""
        meta = {
            "phase": checkpoint.phase,
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "meta": dict(checkpoint.meta),
        }
        before = self._numbers()
        with tempfile.TemporaryDirectory(prefix="enxerto-checkpoint-") as folder:
            path = Path(folder) / "checkpoint"
            save_file(dict(checkpoint.tensors), path, {_META: json.dumps(meta)})
            self._put(path, max(before, default=0) + 1)
            size_bytes = path.stat().st_size
        self._delete(before)
        self._saved(checkpoint, size_bytes)

    def load(self) -> Checkpoint | None:
        """The last one.

        Raises:
            DataLossError: it cannot be read.
        """
        while numbers := self._numbers():
            key = self._key(max(numbers))
            with tempfile.NamedTemporaryFile(prefix="enxerto-checkpoint-") as file, store_errors(key):
                try:
                    for chunk in obstore.get(self._store, key).stream():
                        file.write(chunk)
                except FileNotFoundError:
                    # A newer one took its place meanwhile.
                    continue
                file.flush()
                return _read(file.name, key)
        return None

    def clear(self) -> None:
        """Delete all: the run has its result."""
        self._delete(self._numbers())

    def _put(self, path: Path, number: int) -> None:
        while True:
            key = self._key(number)
            with store_errors(key):
                try:
                    put(self._store, key, path, create=True)
                except obstore.exceptions.AlreadyExistsError:
                    # A worker that was thought dead wrote it; this one is newer.
                    number += 1
                    continue
            return

    def _numbers(self) -> list[int]:
        with store_errors(self._prefix):
            listed = [one["path"] for batch in obstore.list(self._store, self._prefix) for one in batch]
        names = [path.rsplit("/", 1)[-1] for path in listed]
        return [int(name.removesuffix(_SUFFIX)) for name in names if name.endswith(_SUFFIX)]

    def _delete(self, numbers: list[int]) -> None:
        for number in numbers:
            key = self._key(number)
            with store_errors(key):
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08d}{_SUFFIX}"


def _read(path: str, key: str) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            value = json.loads(file.metadata()[_META])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return Checkpoint(value["phase"], int(value["epoch"]), value["meta"], tensors, int(value.get("step", 0)))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataLossError(f"the checkpoint {key} cannot be read: {error}") from error
