"""Short forms of the calls that training tests make."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from enxerto.training.v1 import dataset_pb2, dataset_service_pb2, training_run_pb2, training_service_pb2
from enxerto.training.v1.dataset_service_pb2_grpc import DatasetServiceStub
from enxerto.training.v1.training_service_pb2_grpc import TrainingServiceStub
from enxerto.type.v1 import task_pb2
from grpc_details import FailedCall, failed_call
from training_stack import eventually

PROJECT = "projects/default"


def refusal(call: Callable[..., object], *arguments: object, **named: object) -> FailedCall:
    """Make a call that must fail, and decode how it did."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return failed_call(caught.value)


def create_dataset(
    datasets: DatasetServiceStub, dataset_id: str, task: "task_pb2.Task.ValueType" = task_pb2.TASK_CLASSIFICATION
) -> str:
    """Create a dataset and return its name."""
    dataset = dataset_pb2.Dataset(task=task)
    request = dataset_service_pb2.CreateDatasetRequest(parent=PROJECT, dataset_id=dataset_id, dataset=dataset)
    return datasets.CreateDataset(request).name


def upload(datasets: DatasetServiceStub, archive: bytes, *, sha256: str = "", size: int | None = None) -> str:
    """Upload an archive and return its name."""

    def messages() -> Iterator[dataset_service_pb2.UploadArchiveRequest]:
        header = dataset_service_pb2.ArchiveHeader(
            parent=PROJECT,
            sha256=sha256 or hashlib.sha256(archive).hexdigest(),
            size_bytes=len(archive) if size is None else size,
        )
        yield dataset_service_pb2.UploadArchiveRequest(header=header)
        for start in range(0, len(archive), 2**20):
            yield dataset_service_pb2.UploadArchiveRequest(chunk=archive[start : start + 2**20])

    return datasets.UploadArchive(messages()).upload


def snapshot_source(path: Path | None = None, upload: str = "", uri: str = "") -> dataset_pb2.SnapshotSource:
    """One of the three sources."""
    if uri:
        return dataset_pb2.SnapshotSource(uri=uri)
    return dataset_pb2.SnapshotSource(upload=upload) if upload else dataset_pb2.SnapshotSource(path=str(path))


def validate(datasets: DatasetServiceStub, dataset: str, **source: object) -> dataset_pb2.ValidationReport:
    """Look at a source and return the last message's report."""
    request = dataset_service_pb2.ValidateDatasetRequest(dataset=dataset, source=snapshot_source(**source))
    *_, last = datasets.ValidateDataset(request)
    return last.report


def start_import(
    datasets: DatasetServiceStub,
    dataset: str,
    *,
    path: Path | None = None,
    upload: str = "",
    uri: str = "",
    request_id: str = "",
) -> dataset_pb2.Snapshot:
    """Ask for an import."""
    source = snapshot_source(path, upload, uri)
    return datasets.CreateSnapshot(
        dataset_service_pb2.CreateSnapshotRequest(
            parent=dataset, snapshot=dataset_pb2.Snapshot(source=source), request_id=request_id
        )
    )


def imported(datasets: DatasetServiceStub, name: str) -> dataset_pb2.Snapshot:
    """The snapshot once it is READY or FAILED."""

    def ended() -> dataset_pb2.Snapshot | None:
        snapshot = datasets.GetSnapshot(dataset_service_pb2.GetSnapshotRequest(name=name))
        return None if snapshot.state == dataset_pb2.Snapshot.STATE_IMPORTING else snapshot

    return eventually(ended)


def import_folder(datasets: DatasetServiceStub, dataset: str, path: Path) -> dataset_pb2.Snapshot:
    """Import a folder and wait for the outcome."""
    return imported(datasets, start_import(datasets, dataset, path=path).name)


def start_run(training: TrainingServiceStub, snapshot: str, run_id: str = "", **spec: object) -> str:
    """Ask for a run and return its name."""
    given = {"snapshot": snapshot, "base_model": "baseModels/efficientnet-lite0", "model": f"{PROJECT}/models/digits"}
    run = training_run_pb2.TrainingRun(spec=training_run_pb2.TrainingSpec(**{**given, **spec}))
    return training.CreateTrainingRun(
        training_service_pb2.CreateTrainingRunRequest(parent=PROJECT, training_run_id=run_id, training_run=run)
    ).name


def get_run(training: TrainingServiceStub, name: str) -> training_run_pb2.TrainingRun:
    """Read a run."""
    return training.GetTrainingRun(training_service_pb2.GetTrainingRunRequest(name=name))
