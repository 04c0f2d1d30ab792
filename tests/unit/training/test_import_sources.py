"""Where imports read and write: a full disk, a stop, and what may not be read."""

import errno
import hashlib
import io
import os
import tarfile
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore

from enxerto.kernel.errors import FailedPreconditionError, UnavailableError
from enxerto.kernel.names import SnapshotName
from enxerto.training.adapters.import_sources import ImportSources, allowed_path
from enxerto.training.adapters.importer import DatasetImporter
from enxerto.training.adapters.object_store import ObjectUploadStore, put, store_errors, upload_key
from enxerto.training.domain import PathSource, Snapshot, UploadSource
from enxerto.training.errors import DiskFullError
from enxerto.vision.archives import ArchiveLimits
from enxerto.vision.images import ImageLimits
from enxerto.vision.specs import Task
from fakes.dataset_folders import write_class_folders
from fakes.datasets import classification_scenes
from fakes.training_stores import START

RECEIVED, UNPACKED, STORED = "wb", "xb", "xb"
"""Modes that the files of a stage are opened in."""


class World:
    """An importer with a store and a scratch folder, and a data set as a folder and as an upload."""

    def __init__(self, folder):
        self.store, self.scratch = LocalStore(str(folder / "objects"), mkdir=True), folder / "scratch"
        self.root = write_class_folders(classification_scenes(4, 2), folder / "data")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as bundle:
            bundle.add(self.root, ".")
        self.archive = buffer.getvalue()
        self.sha256 = hashlib.sha256(self.archive).hexdigest()
        self.sources = ImportSources(self.store, self.scratch, (folder,), (), ArchiveLimits())
        self.importer = DatasetImporter(self.sources, self.store, self.scratch, ImageLimits(), 1)

    async def run(self, source):
        snapshot = Snapshot(
            name=SnapshotName("default", "d", 1), source=source, split_seed=0, create_time=START, update_time=START
        )
        return await self.importer.run(snapshot, Task.CLASSIFICATION)

    async def upload(self):
        async def chunks():
            yield self.archive

        await ObjectUploadStore(self.store, self.scratch).put("default", self.sha256, chunks())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def fill(monkeypatch):
    """Puts files that are opened in a mode on a disk without room."""
    really_open = Path.open

    def fill(full_mode):
        def open_full(path, mode="r", *args, **kwargs):
            if mode == full_mode:
                return really_open(Path("/dev/full"), "wb")
            return really_open(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", open_full)

    return fill


@pytest.mark.parametrize("mode", [RECEIVED, UNPACKED])
async def test_a_full_scratch_folder_ends_an_import(world, fill, mode):
    put(world.store, upload_key("default", world.sha256), world.archive)
    fill(mode)
    with pytest.raises(DiskFullError):
        await world.run(UploadSource(world.sha256))
    assert list(world.scratch.iterdir()) == []


async def test_a_full_store_ends_an_import_and_is_named(world, fill, tmp_path):
    fill(STORED)
    with pytest.raises(DiskFullError, match=str(tmp_path / "objects")):
        await world.run(PathSource(str(world.root)))


@pytest.mark.parametrize(("mode", "folder"), [(RECEIVED, "scratch"), (STORED, "objects")])
async def test_an_upload_to_a_full_disk_is_told_as_such(world, fill, tmp_path, mode, folder):
    fill(mode)
    with pytest.raises(DiskFullError, match=str(tmp_path / folder)):
        await world.upload()
    assert list(world.scratch.iterdir()) == []


async def test_an_error_of_the_scratch_folder_is_no_outage_of_the_store(world, monkeypatch):
    put(world.store, upload_key("default", world.sha256), world.archive)
    really_open = Path.open

    def open_most(path, mode="r", *args, **kwargs):
        if mode == RECEIVED:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_most)
    with pytest.raises(PermissionError):
        await world.run(UploadSource(world.sha256))


def test_errors_of_a_store_are_an_outage_and_a_stop_is_none():
    with pytest.raises(UnavailableError), store_errors("key"):
        raise obstore.exceptions.GenericError("away")
    with pytest.raises(UnavailableError), store_errors("key"):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(InterruptedError), store_errors("key"):
        raise InterruptedError("the service is stopping")


def test_a_stop_ends_unpacking_and_leaves_nothing(world):
    (world.root.parent / "data.tar").write_bytes(world.archive)
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        if asked == 5:
            raise InterruptedError("the service is stopping")

    source = PathSource(str(world.root.parent / "data.tar"))
    with pytest.raises(InterruptedError), world.sources.folder("default", source, stop):
        pass
    assert asked == 5
    assert list(world.scratch.iterdir()) == []


def test_what_may_not_be_read_is_refused_before_an_import(tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("long" * 100), tmp_path / "nothing"):
        with pytest.raises(FailedPreconditionError):
            allowed_path(str(path), (tmp_path,))
    assert allowed_path(str(tmp_path), (tmp_path,)) == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(FailedPreconditionError, match="may not read"):
        allowed_path(str(tmp_path), (tmp_path,))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(FailedPreconditionError, match="Permission denied"):
        allowed_path(str(tmp_path), (tmp_path,))
