import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from enxerto.vision.archives import ArchiveError, ArchiveLimits, extract

FILES = {"cats/1.png": b"one", "cats/2.png": b"two" * 1000, "dogs/3.png": b"three"}


def _tar(
    path: Path, mode: str = "w", extra: list[tarfile.TarInfo] | None = None, files: dict[str, bytes] | None = None
) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in (FILES if files is None else files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra or []:
            tar.addfile(member)
    return path


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return path


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def _content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _codes(error: ArchiveError) -> dict[str, str]:
    return {offender.member: offender.code for offender in error.offenders}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_tars_are_told_apart_by_content(tmp_path: Path, mode: str) -> None:
    extract(_tar(tmp_path / "upload", mode), tmp_path / "out")
    assert _content(tmp_path / "out") == FILES


def test_zip(tmp_path: Path) -> None:
    extract(_zip(tmp_path / "upload", FILES), tmp_path / "out")
    assert _content(tmp_path / "out") == FILES


def test_every_offending_tar_member_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    device = tarfile.TarInfo("cats/null")
    device.type = tarfile.CHRTYPE
    extra = [
        _link("cats/link.png", "/etc/passwd"),
        _link("cats/hard.png", "cats/1.png", tarfile.LNKTYPE),
        tarfile.TarInfo("../../escape.png"),
        tarfile.TarInfo("/absolute.png"),
        tarfile.TarInfo("cats/1.png"),
        device,
    ]
    with pytest.raises(ArchiveError) as error:
        extract(_tar(tmp_path / "upload", extra=extra), tmp_path / "out")
    assert _codes(error.value) == {
        "cats/link.png": "LINK",
        "cats/hard.png": "LINK",
        "../../escape.png": "PATH_TRAVERSAL",
        "/absolute.png": "ABSOLUTE_PATH",
        "cats/1.png": "DUPLICATE",
        "cats/null": "SPECIAL_FILE",
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["upload"]


def test_every_offending_zip_member_is_named(tmp_path: Path) -> None:
    path = _zip(
        tmp_path / "upload", {"a/../../b.png": b"", "/c.png": b"", "d\\e.png": b"", "C:/f.png": b"", "ok.png": b""}
    )
    with zipfile.ZipFile(path, "a") as bundle:
        link = zipfile.ZipInfo("link.png")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out")
    assert _codes(error.value) == {
        "a/../../b.png": "PATH_TRAVERSAL",
        "/c.png": "ABSOLUTE_PATH",
        "d\\e.png": "BAD_NAME",
        "C:/f.png": "ABSOLUTE_PATH",
        "link.png": "LINK",
    }
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_stopped_while_it_streams(tmp_path: Path, kind: str) -> None:
    files = {"bomb.png": b"\0" * 20_000_000}
    path = _zip(tmp_path / "upload", files) if kind == "zip" else _tar(tmp_path / "upload", "w:gz", files=files)
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out", ArchiveLimits(ratio=50, ratio_floor_bytes=1_000_000))
    assert _codes(error.value) == {"bomb.png": "TOO_LARGE"}
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out", ArchiveLimits(total_bytes=1_000_000))
    assert _codes(error.value) == {"bomb.png": "TOO_LARGE"}
    assert not (tmp_path / "out").exists()


def test_a_bomb_hidden_in_a_skipped_member_is_stopped(tmp_path: Path) -> None:
    path = _tar(tmp_path / "upload", "w:gz", files={"../a": b"\0" * 20_000_000, "../b": b""})
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out", ArchiveLimits(total_bytes=1_000_000))
    assert "TOO_LARGE" in {offender.code for offender in error.value.offenders}


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 50_000_000
    with tarfile.open(tmp_path / "upload", "w:gz") as tar:
        tar.fileobj.write(header.tobuf() + b"\0" * 50_000_000)  # type: ignore[union-attr]
    with pytest.raises(ArchiveError) as error:
        extract(tmp_path / "upload", tmp_path / "out")
    assert error.value.offenders[-1].code == "TOO_LARGE"


@pytest.mark.parametrize(("kind", "member"), [("zip", ""), ("tar", "dogs/3.png")])
def test_too_many_entries(tmp_path: Path, kind: str, member: str) -> None:
    path = _zip(tmp_path / "upload", FILES) if kind == "zip" else _tar(tmp_path / "upload")
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out", ArchiveLimits(entries=2))
    assert _codes(error.value) == {member: "TOO_MANY_ENTRIES"}
    extract(path, tmp_path / "out", ArchiveLimits(entries=3))
    assert _content(tmp_path / "out") == FILES


def _long_directory(path: Path, entries: int, *, zip64: bool) -> Path:
    """A zip whose directory is long and said to have one entry."""
    start = zipfile.structFileHeader
    header = struct.pack(start, zipfile.stringFileHeader, *([0] * (len(struct.unpack(start, bytes(30))) - 1)))
    entry = zipfile.stringCentralDir + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    size, offset = entries * len(entry), len(header)
    told = (0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (size, offset)
    end = struct.pack(zipfile.structEndArchive, zipfile.stringEndArchive, 0, 0, 1, 1, *told, 0)
    if zip64:
        record = (zipfile.stringEndArchive64, 44, 45, 45, 0, 0, 1, 1, size, offset)
        locator = (zipfile.stringEndArchive64Locator, 0, offset + size, 1)
        end = (
            struct.pack(zipfile.structEndArchive64, *record)
            + struct.pack(zipfile.structEndArchive64Locator, *locator)
            + end
        )
    path.write_bytes(header + entry * entries + end)
    return path


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("entries", [10_000, 100_000])
def test_a_long_directory_of_a_zip_is_refused_before_it_fills_memory(tmp_path: Path, entries: int, zip64: bool) -> None:
    path = _long_directory(tmp_path / "upload", entries, zip64=zip64)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError) as error:
            extract(path, tmp_path / "out", ArchiveLimits(entries=100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert _codes(error.value) == {"": "TOO_MANY_ENTRIES"}
    assert peak < 3 * 2**20
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2", "zip"])
def test_truncated_archives_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "upload"
    files = {f"cats/{i}.png": os.urandom(3000) for i in range(10)}
    _zip(path, files) if mode == "zip" else _tar(path, mode, files=files)
    path.write_bytes(path.read_bytes()[:16_000])
    with pytest.raises(ArchiveError) as error:
        extract(path, tmp_path / "out")
    assert error.value.offenders[0].code == "CORRUPT"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"x" * 600, b"Rar!\x1a\x07" + b"x" * 600])
def test_other_files_are_not_archives(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "upload").write_bytes(data)
    with pytest.raises(ArchiveError) as error:
        extract(tmp_path / "upload", tmp_path / "out")
    assert error.value.offenders[0].code == "UNSUPPORTED"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError) as error:
        extract(_zip(tmp_path / "upload", {"a": b"", "a/b.png": b""}), tmp_path / "out")
    assert _codes(error.value) == {"a/b.png": "DUPLICATE"}


def test_names_that_are_not_utf8_are_told_legibly(tmp_path: Path) -> None:
    extra = [_link("link\udce9.png", "cats/1.png"), tarfile.TarInfo("cats/caf\udce9.png")]
    with pytest.raises(ArchiveError) as error:
        extract(_tar(tmp_path / "upload", extra=extra), tmp_path / "out")
    assert _codes(error.value) == {"link\\udce9.png": "LINK", "cats/caf\\udce9.png": "BAD_NAME"}
    error.value.args[0].encode()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new file is on a disk without room."""
    really_open = Path.open

    def open_full(path: Path, mode: str = "r"):
        return really_open(Path("/dev/full"), "wb") if mode == "xb" else really_open(path, mode)

    monkeypatch.setattr(Path, "open", open_full)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_no_damage_of_the_archive(tmp_path: Path, kind: str) -> None:
    path = _zip(tmp_path / "upload", FILES) if kind == "zip" else _tar(tmp_path / "upload")
    with pytest.raises(OSError, match="No space left on device"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("files", [{"a.png": bytes(5 * 2**20)}, {f"{i}.png": b"x" for i in range(10)}], ids=len)
def test_unpacking_stops_between_members_and_within_one(tmp_path: Path, kind: str, files: dict[str, bytes]) -> None:
    path = _zip(tmp_path / "upload", files) if kind == "zip" else _tar(tmp_path / "upload", files=files)
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise InterruptedError("the service is stopping")

    with pytest.raises(InterruptedError):
        extract(path, tmp_path / "out", stop=stop)
    assert asked == 4
    assert not (tmp_path / "out").exists()
