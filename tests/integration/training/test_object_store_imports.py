"""Data sets in a real S3 store: folders, archives, and what is refused."""

import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import obstore
import pytest
from obstore.store import LocalStore

from enxerto.kernel.errors import FailedPreconditionError
from enxerto.training.adapters.import_sources import ImportSources
from enxerto.training.domain import UriSource
from enxerto.training.ports import ImportRefusedError
from enxerto.training.v1 import dataset_pb2
from enxerto.type.v1 import task_pb2
from enxerto.vision.archives import ArchiveLimits
from fakes.dataset_folders import write_coco
from fakes.datasets import detection_scenes
from servers import S3Server, s3_server
from training_calls import create_dataset, imported, refusal, start_import, validate
from training_stack import Stack, running_stack

# The store and the services are started once.
pytestmark = pytest.mark.xdist_group("s3-imports")

READY, FAILED = dataset_pb2.Snapshot.STATE_READY, dataset_pb2.Snapshot.STATE_FAILED


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server(("data", "closed")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    locations = json.dumps(["s3://data/sets", "s3://data/nowhere", "s3://absent-bucket"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        with running_stack(None, tmp_path_factory.mktemp("s3"), IMPORT_LOCATIONS=locations) as running:
            yield running


@pytest.fixture
def datasets(stack):
    with stack.stubs() as (stub, _):
        yield stub


@pytest.fixture
def dataset(datasets) -> str:
    return create_dataset(datasets, f"s-{uuid.uuid4().hex[:12]}", task_pb2.TASK_DETECTION)


@pytest.fixture(scope="module")
def written(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder in the store under `sets/shapes/` and as an archive beside it."""
    root = write_coco(detection_scenes(8), tmp_path_factory.mktemp("coco"))
    store, buffer = s3.store("data"), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            name = file.relative_to(root).as_posix()
            obstore.put(store, f"sets/shapes/{name}", file.read_bytes())
            bundle.add(file, name)
    obstore.put(store, "sets/shapes.tar.gz", buffer.getvalue())
    # Beside the data set, with a name that begins alike.
    obstore.put(store, "sets/shapes-broken/train/x.png", b"nothing")
    return root


def test_a_folder_and_an_archive_in_the_store_are_the_same_as_on_disk(stack, datasets, dataset, written):
    local = stack.import_root / "shapes"
    written.rename(local)
    on_disk = imported(datasets, start_import(datasets, dataset, path=local).name)
    assert on_disk.state == READY, on_disk.findings
    for uri in ("s3://data/sets/shapes", "s3://data/sets/shapes/", "s3://data/sets/shapes.tar.gz"):
        snapshot = imported(datasets, start_import(datasets, dataset, uri=uri).name)
        assert (snapshot.state, snapshot.digest) == (READY, on_disk.digest), snapshot.error
        assert snapshot.source.uri == uri
        assert validate(datasets, dataset, uri=uri).statistics == on_disk.statistics
    assert list((stack.folder / "cache" / "scratch").iterdir()) == []


def test_what_is_wrong_in_the_store_is_told_as_on_disk(datasets, dataset, written):
    snapshot = imported(datasets, start_import(datasets, dataset, uri="s3://data/sets/shapes-broken").name)
    assert (snapshot.state, snapshot.findings[0].code) == (FAILED, "UNKNOWN_FORMAT")


def test_only_allowed_locations_that_hold_something_are_read(datasets, dataset, written):
    for uri in ("s3://data/sets2", "s3://data", "s3://closed/sets", "s3://data/sets/../../closed", "gs://data/sets"):
        failure = refusal(start_import, datasets, dataset, uri=uri)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "IMPORT_LOCATION_NOT_ALLOWED")
    for uri in ("s3://data/nowhere", "s3://data/sets/no-such.zip", "s3://absent-bucket/x"):
        assert refusal(start_import, datasets, dataset, uri=uri).code is grpc.StatusCode.FAILED_PRECONDITION


def test_wrong_credentials_are_a_refusal_and_not_an_outage(s3, tmp_path, monkeypatch):
    for name, value in {**s3.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"}.items():
        monkeypatch.setenv(name, value)
    sources = ImportSources(LocalStore(str(tmp_path)), tmp_path, (), ("s3://data",), ArchiveLimits())
    with pytest.raises(FailedPreconditionError, match="credentials may not read"):
        sources.check("default", UriSource("s3://data/sets"))


def test_what_has_no_place_on_a_disk_is_refused_and_our_own_disk_is_no_outage(s3, tmp_path, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    store = s3.store("data")
    for key in ("twins/a.png", "twins/a.png/b.png", "plain/a.png"):
        obstore.put(store, key, b"picture")
    sources = ImportSources(LocalStore(str(tmp_path)), tmp_path, (), ("s3://data",), ArchiveLimits())
    with (
        pytest.raises(ImportRefusedError) as refused,
        sources.folder("default", UriSource("s3://data/twins"), lambda: None),
    ):
        pass
    assert [(one.code, one.path) for one in refused.value.findings] == [("DUPLICATE", "a.png/b.png")]
    with sources.folder("default", UriSource("s3://data/plain"), lambda: None) as folder:
        assert (folder / "a.png").read_bytes() == b"picture"
    really_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: really_open(Path("/dev/full"), *mode))
    with (
        pytest.raises(OSError, match="No space left on device"),
        sources.folder("default", UriSource("s3://data/plain"), lambda: None),
    ):
        pass


def test_more_than_the_limit_is_refused_before_it_is_fetched(s3, datasets, dataset):
    store = s3.store("data")
    for number in range(5):
        obstore.put(store, f"sets/large/{number}.png", bytes(60 * 2**20))
    snapshot = imported(datasets, start_import(datasets, dataset, uri="s3://data/sets/large").name)
    assert (snapshot.state, snapshot.findings[0].code) == (FAILED, "TOO_LARGE")
