"""The folder of fetched models: what is used stays, and the others make room."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from enxerto.inference.adapters.model_cache import ENGINES, NOTE, PARTIAL, prune, read_note, use, write_note
from enxerto.inference.adapters.model_files import fetch_model
from enxerto.kernel.names import VersionName
from enxerto.registry.v1 import model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from fakes.scripted_services import scripted_services
from fakes.tiny_onnx import TinyModel

HOUR_S = 3600


def put(folder: Path, name: str, hours: float, size_bytes: int = 10) -> Path:
    """A file that was used so long ago."""
    path = folder / name
    path.write_bytes(bytes(size_bytes))
    used = time.time() - hours * HOUR_S
    os.utime(path, (used, used))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_files_that_were_not_used_longest_make_room(tmp_path: Path) -> None:
    for hours in (2, 5, 3, 4):
        put(tmp_path, f"{hours}.onnx", hours)
    put(tmp_path, "other", 9)
    for hours in (2, 3):
        (tmp_path / f"{hours}{ENGINES}").mkdir()
    prune(tmp_path, 40)
    assert len(names(tmp_path)) == 7
    assert use(tmp_path / "5.onnx")
    prune(tmp_path, 29)
    assert names(tmp_path) == {"5.onnx", "2.onnx", f"2{ENGINES}", "other"}


def test_what_somebody_may_be_about_to_open_stays(tmp_path: Path) -> None:
    put(tmp_path, "now.onnx", 0)
    put(tmp_path, "lately.onnx", 0.9)
    prune(tmp_path, 0)
    assert names(tmp_path) == {"now.onnx", "lately.onnx"}


def test_what_a_broken_download_left_is_removed(tmp_path: Path) -> None:
    put(tmp_path, f"a{PARTIAL}", 2)
    put(tmp_path, f"b{PARTIAL}", 0.1)
    prune(tmp_path)
    assert names(tmp_path) == {f"b{PARTIAL}"}


def test_a_note_stays_as_long_as_its_file(tmp_path: Path) -> None:
    put(tmp_path, "abc.onnx", 2)
    for note, digest in (("a", "abc"), ("b", "gone"), ("c", "\0")):
        write_note(tmp_path / f"{note}{NOTE}", digest)
        os.utime(tmp_path / f"{note}{NOTE}", (0, 0))
    prune(tmp_path)
    assert names(tmp_path) == {"abc.onnx", f"a{NOTE}"}
    assert read_note(tmp_path / f"a{NOTE}") == "abc"
    assert read_note(tmp_path / f"b{NOTE}") == ""
    write_note(tmp_path / "missing" / f"a{NOTE}", "abc")


def test_what_is_not_there_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not use(tmp_path / "gone.onnx")
    path = put(tmp_path, "given.onnx", 2)

    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert use(path)


def test_a_fetch_uses_the_file_and_tidies_the_folder(tmp_path: Path) -> None:
    tiny, name = TinyModel(), VersionName("default", "pets", 1)
    version = tiny.version(hashlib.sha256(tiny.data).hexdigest())
    version.name, version.state = str(name), model_version_pb2.ModelVersion.STATE_READY
    put(tmp_path, f"left{PARTIAL}", 2)
    with scripted_services() as registry:
        registry.on("GetModelVersion", version)
        registry.on("DownloadBlob", lambda _request, _context: iter([pb.DownloadBlobResponse(chunk=tiny.data)]))
        path = fetch_model(name, registry.address, None, tmp_path)
        assert {name for name in names(tmp_path) if not name.endswith(NOTE)} == {path.name}
        os.utime(path, (0, 0))
        assert fetch_model(name, registry.address, None, tmp_path) == path
        assert len(registry.requests("DownloadBlob")) == 1
    assert time.time() - path.stat().st_mtime < HOUR_S
