"""Datasets, their snapshots and uploads, between the contract and the domain."""

import re
from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DatasetName, ProjectName, check_id, is_sha256
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.runtime.timestamps import timestamp
from enxerto.training.converters.fields import idempotency, read_labels, status_to_proto
from enxerto.training.domain import (
    Dataset,
    DatasetValidation,
    Finding,
    PathSource,
    Snapshot,
    Source,
    UploadSource,
    UriSource,
)
from enxerto.training.domain.datasets import MAX_FINDINGS
from enxerto.training.ports import Idempotency
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from enxerto.type.v1 import task_pb2
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Split, Task

_MAX_DISPLAY_NAME = 200
_TASKS = {task_pb2.Task.Value(f"TASK_{one}"): one for one in Task}
_URI = re.compile(r"(s3|gs)://[a-z0-9][a-z0-9._-]{1,221}(/[^\x00-\x1f?#]*)?")


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
    task = _TASKS.get(request.dataset.task)
    if task is None:
        violations.add("dataset.task", f"must be one of {', '.join(f'TASK_{one}' for one in Task)}")
    if len(request.dataset.display_name) > _MAX_DISPLAY_NAME:
        violations.add("dataset.display_name", f"must have at most {_MAX_DISPLAY_NAME} characters")
    labels = read_labels(request.dataset.labels, "dataset.labels", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    assert task is not None
    name = DatasetName(parent.project, dataset_id)
    return NewDataset(name, task, request.dataset.display_name, labels, key)


def new_snapshot(request: dataset_service_pb2.CreateSnapshotRequest) -> NewSnapshot:
    """Read a CreateSnapshot request."""
    violations = Violations()
    parent = DatasetName.check(request.parent, "parent", violations)
    source = _source(request.snapshot.source, parent, "snapshot.source", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    return NewSnapshot(parent, source, request.snapshot.source.split_seed, key)


def new_validation(request: dataset_service_pb2.ValidateDatasetRequest) -> NewSnapshot:
    """Read a ValidateDataset request."""
    violations = Violations()
    parent = DatasetName.check(request.dataset, "dataset", violations)
    source = _source(request.source, parent, "source", violations)
    violations.raise_if_any()
    assert parent is not None
    return NewSnapshot(parent, source, request.source.split_seed, None)


def _source(
    given: dataset_pb2.SnapshotSource, parent: DatasetName | None, field: str, violations: Violations
) -> Source:
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
        case "uri":
            if not _URI.fullmatch(given.uri):
                violations.add(f"{field}.uri", "must be s3://bucket/prefix or gs://bucket/prefix")
            source = UriSource(given.uri)
        case _:
            violations.add(field, "needs a path, an upload or a uri")
    if given.split_seed < 0:
        violations.add(f"{field}.split_seed", "must not be negative")
    return source


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
    page = page_request(request.page_size, request.page_token, violations, numbered=True)
    violations.raise_if_any()
    assert name is not None
    return name, page


def dataset_to_proto(dataset: Dataset) -> dataset_pb2.Dataset:
    """A dataset as clients see it."""
    latest = f"{dataset.name}/snapshots/{dataset.latest_ready}" if dataset.latest_ready else ""
    return dataset_pb2.Dataset(
        name=str(dataset.name),
        display_name=dataset.display_name,
        task=task_pb2.Task.Value(f"TASK_{dataset.task}"),
        labels=dict(dataset.labels),
        latest_snapshot=latest,
        create_time=timestamp(dataset.create_time),
        update_time=timestamp(dataset.update_time),
        etag=f'"{dataset.revision}"',
    )


def snapshot_to_proto(snapshot: Snapshot) -> dataset_pb2.Snapshot:
    """A snapshot as clients see it."""
    content = snapshot.content
    return dataset_pb2.Snapshot(
        name=str(snapshot.name),
        state=dataset_pb2.Snapshot.State.Value(f"STATE_{snapshot.state.value}"),
        source=_source_to_proto(snapshot),
        error=status_to_proto(snapshot.error),
        findings=[_finding(one) for one in snapshot.findings],
        finding_count=snapshot.finding_count,
        digest=content.digest if content else "",
        class_names=content.class_names if content else (),
        split_counts=dict(content.split_counts) if content else {},
        size_bytes=content.size_bytes if content else 0,
        create_time=timestamp(snapshot.create_time),
        update_time=timestamp(snapshot.update_time),
        etag=f'"{snapshot.revision}"',
        statistics=_statistics(snapshot.statistics),
    )


def validation_to_proto(found: tuple[int, int] | DatasetValidation) -> dataset_service_pb2.ValidateDatasetResponse:
    """Progress (images done, images in all), or what was found."""
    if not isinstance(found, DatasetValidation):
        progress = dataset_service_pb2.ValidationProgress(images_done=found[0], image_count=found[1])
        return dataset_service_pb2.ValidateDatasetResponse(progress=progress)
    report = dataset_pb2.ValidationReport(
        importable=found.importable,
        findings=[_finding(one) for one in found.findings[:MAX_FINDINGS]],
        finding_count=len(found.findings),
        statistics=_statistics(found.statistics),
        split_counts=dict(found.split_counts),
    )
    return dataset_service_pb2.ValidateDatasetResponse(report=report)


def _source_to_proto(snapshot: Snapshot) -> dataset_pb2.SnapshotSource:
    source = dataset_pb2.SnapshotSource(split_seed=snapshot.split_seed)
    match snapshot.source:
        case PathSource(path):
            source.path = path
        case UploadSource(sha256):
            source.upload = upload_name(snapshot.name.project, sha256)
        case UriSource(uri):
            source.uri = uri
    return source


def _finding(finding: Finding) -> dataset_pb2.Finding:
    severity = "SEVERITY_ERROR" if finding.is_error else "SEVERITY_WARNING"
    return dataset_pb2.Finding(
        severity=dataset_pb2.Finding.Severity.Value(severity),
        path=finding.path,
        code=finding.code,
        message=finding.message,
        line=finding.line,
    )


def _statistics(found: DatasetStatistics | None) -> dataset_pb2.DatasetStatistics | None:
    if found is None:
        return None
    return dataset_pb2.DatasetStatistics(
        format=found.format,
        image_count=found.image_count,
        annotation_count=found.annotation_count,
        classes=[
            dataset_pb2.ClassCount(
                class_name=one.class_name, split_counts={split.value.lower(): one.count(split) for split in Split}
            )
            for one in found.classes
        ],
        sizes=[dataset_pb2.SizeBin(max_side=one.max_side, count=one.count) for one in found.sizes],
    )


def upload_name(project: str, sha256: str) -> str:
    """The name that UploadArchive returns."""
    return f"projects/{project}/uploads/{sha256}"
