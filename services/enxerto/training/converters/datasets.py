"""Datasets, their snapshots and uploads, between the contract and the domain."""

from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DatasetName, ProjectName, check_id, is_sha256
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.runtime.timestamps import timestamp
from enxerto.training.converters.fields import idempotency, read_labels, status_to_proto
from enxerto.training.domain import Dataset, PathSource, Snapshot, Source, UploadSource
from enxerto.training.ports import Idempotency
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from enxerto.type.v1 import task_pb2
from enxerto.vision.specs import Task

_MAX_DISPLAY_NAME = 200


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A CreateDataset request."""

    name: DatasetName
    task: Task
    display_name: str
    labels: dict[str, str]
    request: Idempotency | None


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A CreateSnapshot request."""

    parent: DatasetName
    source: Source
    split_seed: int
    request: Idempotency | None


@dataclass(frozen=True, slots=True)
class ArchiveAnnouncement:
    """The header of an upload."""

    parent: ProjectName
    sha256: str
    size_bytes: int


def new_dataset(request: dataset_service_pb2.CreateDatasetRequest) -> NewDataset:
    """Read a CreateDataset request."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    dataset_id = check_id(request.dataset_id, "dataset_id", violations)
    if request.dataset.task != task_pb2.TASK_CLASSIFICATION:
        violations.add("dataset.task", "must be TASK_CLASSIFICATION")
    if len(request.dataset.display_name) > _MAX_DISPLAY_NAME:
        violations.add("dataset.display_name", f"must have at most {_MAX_DISPLAY_NAME} characters")
    labels = read_labels(request.dataset.labels, "dataset.labels", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    name = DatasetName(parent.project, dataset_id)
    return NewDataset(name, Task.CLASSIFICATION, request.dataset.display_name, labels, key)


def new_snapshot(request: dataset_service_pb2.CreateSnapshotRequest) -> NewSnapshot:
    """Read a CreateSnapshot request."""
    violations = Violations()
    parent = DatasetName.check(request.parent, "parent", violations)
    field, given = "snapshot.source", request.snapshot.source
    source: Source = PathSource("")
    match given.WhichOneof("source"):
        case "path":
            if not given.path.startswith("/") or "\0" in given.path:
                violations.add(f"{field}.path", "must be an absolute path")
            source = PathSource(given.path)
        case "upload":
            parts = given.upload.split("/")
            if len(parts) != 4 or parts[::2] != ["projects", "uploads"] or not is_sha256(parts[3]):
                violations.add(f"{field}.upload", "must be a name that UploadArchive returned")
            elif parent is not None and parts[1] != parent.project:
                violations.add(f"{field}.upload", "must be of the same project as the dataset")
            source = UploadSource(parts[-1])
        case _:
            violations.add(field, "needs a path or an upload")
    if given.split_seed < 0:
        violations.add(f"{field}.split_seed", "must not be negative")
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    return NewSnapshot(parent, source, given.split_seed, key)


def archive_header(request: dataset_service_pb2.UploadArchiveRequest | None) -> ArchiveAnnouncement:
    """Read the first message of an upload."""
    violations = Violations()
    if request is None or request.WhichOneof("payload") != "header":
        violations.add("header", "must be the first message")
        violations.raise_if_any()
    assert request is not None
    header = request.header
    parent = ProjectName.check(header.parent, "header.parent", violations)
    if not is_sha256(header.sha256):
        violations.add("header.sha256", "must be a lower-case hexadecimal sha256")
    if header.size_bytes <= 0:
        violations.add("header.size_bytes", "must be positive")
    violations.raise_if_any()
    assert parent is not None
    return ArchiveAnnouncement(parent, header.sha256, header.size_bytes)


def archive_chunk(request: dataset_service_pb2.UploadArchiveRequest) -> bytes:
    """Read a later message of an upload."""
    if request.WhichOneof("payload") != "chunk":
        violations = Violations()
        violations.add("payload", "must be a chunk after the header")
        violations.raise_if_any()
    return request.chunk


def dataset_page(request: dataset_service_pb2.ListSnapshotsRequest) -> tuple[DatasetName, PageRequest]:
    """Read a ListSnapshots request."""
    violations = Violations()
    name = DatasetName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    assert name is not None
    return name, page


def dataset_to_proto(dataset: Dataset) -> dataset_pb2.Dataset:
    """A dataset as clients see it."""
    latest = f"{dataset.name}/snapshots/{dataset.latest_ready}" if dataset.latest_ready else ""
    return dataset_pb2.Dataset(
        name=str(dataset.name),
        display_name=dataset.display_name,
        task=task_pb2.TASK_CLASSIFICATION,
        labels=dict(dataset.labels),
        latest_snapshot=latest,
        create_time=timestamp(dataset.create_time),
        update_time=timestamp(dataset.update_time),
        etag=f'"{dataset.revision}"',
    )


def snapshot_to_proto(snapshot: Snapshot) -> dataset_pb2.Snapshot:
    """A snapshot as clients see it."""
    source = dataset_pb2.SnapshotSource(split_seed=snapshot.split_seed)
    if isinstance(snapshot.source, PathSource):
        source.path = snapshot.source.path
    else:
        source.upload = upload_name(snapshot.name.project, snapshot.source.sha256)
    kinds = dataset_pb2.Finding.Severity
    content = snapshot.content
    return dataset_pb2.Snapshot(
        name=str(snapshot.name),
        state=dataset_pb2.Snapshot.State.Value(f"STATE_{snapshot.state.value}"),
        source=source,
        error=status_to_proto(snapshot.error),
        findings=[
            dataset_pb2.Finding(
                severity=kinds.Value("SEVERITY_ERROR" if one.is_error else "SEVERITY_WARNING"),
                path=one.path,
                code=one.code,
                message=one.message,
            )
            for one in snapshot.findings
        ],
        finding_count=snapshot.finding_count,
        digest=content.digest if content else "",
        class_names=content.class_names if content else (),
        split_counts=dict(content.split_counts) if content else {},
        size_bytes=content.size_bytes if content else 0,
        create_time=timestamp(snapshot.create_time),
        update_time=timestamp(snapshot.update_time),
        etag=f'"{snapshot.revision}"',
    )


def upload_name(project: str, sha256: str) -> str:
    """The name that UploadArchive returns."""
    return f"projects/{project}/uploads/{sha256}"
