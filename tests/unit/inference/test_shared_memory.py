"""Shared memory that clients name: what is opened, and everything that is not."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enxerto.inference.bootstrap import compose
from enxerto.inference.errors import RegionExistsError, RegionNotFoundError, TooManyRegionsError
from enxerto.inference.oip.shared_memory import MAX_REGIONS, RegionError, Regions, is_local
from enxerto.inference.settings import InferenceSettings
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.runtime.metrics import new_registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """In the place of /dev/shm, with an object of 100 bytes and everything that is none."""
    shared = tmp_path / "shm"
    shared.mkdir()
    (shared / "object").write_bytes(bytes(range(100)))
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    (shared / "link").symlink_to(tmp_path / "secret")
    (shared / "folder").mkdir()
    (shared / "folder" / "inner").write_bytes(bytes(100))
    os.mkfifo(shared / "pipe")
    return shared


def readers(path: Path) -> int:
    """Descriptors of this process that lead to a file."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        # The folder's own descriptor is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found += descriptor.readlink() == path
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refused(regions: Regions, *arguments: object) -> dict[str, str]:
    with pytest.raises(InvalidArgumentError) as refusal:
        regions.register(*arguments)  # type: ignore[arg-type]
    return {violation.field: violation.description for violation in refusal.value.violations}


@pytest.mark.parametrize("key", ["object", "/object"])
def test_a_region_is_read_and_written_where_it_lies(folder: Path, key: str) -> None:
    regions = Regions(folder)
    regions.register("mine", key, 10, 50)
    region = regions.status()["mine"]
    assert region.read(3, 5) == bytes([15, 16, 17])
    region.write(b"\xff\xfe", 48)
    assert (folder / "object").read_bytes()[57:61] == bytes([57, 0xFF, 0xFE, 60])
    for call in (lambda: region.read(1, 50), lambda: region.read(51, 0), lambda: region.write(b"abc", 48)):
        with pytest.raises(RegionError, match="reach beyond the 50 bytes"):
            call()


@pytest.mark.parametrize(
    "key",
    ["", "/", ".", "..", "../secret", "/../secret", "folder/inner", "//object", "/dev/shm/object", "a\0b", "x" * 256],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(folder: Path, key: str) -> None:
    assert "must be one name" in refused(Regions(folder), "mine", key, 0, 10)["key"]


@pytest.mark.parametrize(
    ("key", "says"),
    [("nothing", "there is no shared-memory object"), ("link", "a link is no"), ("folder", "cannot read and write"),
     ("pipe", "is no shared-memory object")],
)  # fmt: skip
def test_what_is_no_object_is_refused(folder: Path, key: str, says: str) -> None:
    regions = Regions(folder)
    assert says in refused(regions, "mine", key, 0, 10)["key"]
    assert not regions.status()


def test_what_does_not_fit_the_object_is_refused(folder: Path) -> None:
    regions = Regions(folder)
    assert "reach beyond the 100 bytes" in refused(regions, "mine", "object", 0, 101)["byte_size"]
    assert "reach beyond the 100 bytes" in refused(regions, "mine", "object", 60, 41)["byte_size"]
    assert "beyond the 100 bytes" in refused(regions, "mine", "object", 2**63, 1)["offset"]
    assert list(refused(regions, "", "../x", 0, 0)) == ["name", "byte_size", "key"]


def test_an_object_cut_short_later_is_an_error_and_no_more(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("mine", "object", 0, 100)
    os.truncate(folder / "object", 10)
    region = regions.status()["mine"]
    assert region.read(10, 0) == bytes(range(10))
    with pytest.raises(RegionError, match="shorter than when it was registered"):
        region.read(11, 0)
    with pytest.raises(RegionError, match="shorter than when it was registered"):
        region.write(bytes(11), 0)
    assert (folder / "object").stat().st_size == 10


def test_names_are_unique_until_they_are_unregistered(folder: Path) -> None:
    regions = Regions(folder)
    before = open_files()
    regions.register("mine", "object", 0, 1)
    with pytest.raises(RegionExistsError):
        regions.register("mine", "object", 0, 1)
    regions.register("other", "object", 0, 1)
    assert list(regions.status("other")) == ["other"]
    regions.unregister("mine")
    regions.unregister("mine")
    with pytest.raises(RegionNotFoundError):
        regions.status("mine")
    regions.unregister()
    assert not regions.status()
    assert open_files() == before


def test_there_are_only_so_many(folder: Path) -> None:
    regions = Regions(folder)
    for index in range(MAX_REGIONS):
        regions.register(str(index), "object", 0, 1)
    with pytest.raises(TooManyRegionsError):
        regions.register("more", "object", 0, 1)
    regions.unregister()


@pytest.mark.parametrize(
    ("peer", "local"),
    [("ipv4:127.0.0.1:5000", True), ("ipv6:[::1]:5000", True), ("ipv6:%5B::1%5D:5000", True), ("unix:", True),
     ("unix:/run/x", True), ("ipv4:10.0.0.7:5000", False), ("ipv6:[2001:db8::1]:5000", False), ("", False),
     ("ipv4:1.127.0.0:5000", False)],
)  # fmt: skip
def test_who_is_on_this_machine(peer: str, local: bool) -> None:
    assert is_local(peer) is local


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """An object of the system's own shared memory, and a secret for the service."""
    (tmp_path / "secret").write_text("s" * 32)
    path = Path(f"/dev/shm/enxerto-test-{os.getpid()}")
    path.write_bytes(bytes(100))
    yield path
    path.unlink()


@pytest.mark.parametrize("ends_well", [True, False])
async def test_the_service_closes_all_regions_when_it_ends(tmp_path: Path, shared: Path, ends_well: bool) -> None:
    settings = InferenceSettings(home=tmp_path, replica_secret_file=tmp_path / "secret", shared_memory=True)
    with contextlib.suppress(ZeroDivisionError):
        async with compose(settings, new_registry()) as wired:
            assert wired.regions is not None
            for name in ("in", "out"):
                wired.regions.register(name, shared.name, 0, 100)
            assert readers(shared) == 2
            if not ends_well:
                raise ZeroDivisionError
    assert readers(shared) == 0
    assert not wired.regions.status()
