"""Short forms of the calls that training tests make."""

import hashlib
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from enxerto.training.v1 import dataset_pb2, dataset_service_pb2, training_run_pb2, training_service_pb2
from enxerto.training.v1.dataset_service_pb2_grpc import DatasetServiceStub
from enxerto.training.v1.training_service_pb2_grpc import TrainingServiceStub
from enxerto.type.v1 import task_pb2
from enxerto.vision.catalogue import get_facts
from grpc_details import FailedCall, failed_call
from training_stack import Stack, eventually

PROJECT = "projects/default"
RUN_S = 240.0
_OVER = (
    training_run_pb2.TrainingRun.STATE_SUCCEEDED,
    training_run_pb2.TrainingRun.STATE_FAILED,
    training_run_pb2.TrainingRun.STATE_CANCELLED,
)


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


def ended(training: TrainingServiceStub, name: str) -> training_run_pb2.TrainingRun:
    """The run once it is over."""

    def look() -> training_run_pb2.TrainingRun | None:
        run = get_run(training, name)
        return run if run.state in _OVER else None

    return eventually(look, RUN_S, 0.5)


class Watcher(threading.Thread):
    """Watches a run as a client would: after every interruption it asks again with its last cursor."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(daemon=True)
        self._address, self._name = address, name
        self.events: list[training_run_pb2.TrainingEvent] = []
        self.interruptions = 0

    def run(self) -> None:
        """Collect events until the run has ended."""
        end = time.monotonic() + RUN_S
        while time.monotonic() < end:
            with grpc.insecure_channel(self._address) as channel:
                stub = TrainingServiceStub(channel)
                after = self.events[-1].cursor if self.events else 0
                request = training_service_pb2.WatchTrainingRunRequest(name=self._name, after_cursor=after)
                try:
                    for event in stub.WatchTrainingRun(request, wait_for_ready=True, timeout=RUN_S):
                        self.events.append(event)
                except grpc.RpcError:
                    self.interruptions += 1
                    continue
                return

    @property
    def states(self) -> list[int]:
        """Every state that was seen."""
        return [event.state_changed.state for event in self.events if event.HasField("state_changed")]

    def epochs(self, phase: str) -> list[int]:
        """Every epoch of a phase that was seen to end."""
        done = [event.epoch_completed.progress for event in self.events if event.HasField("epoch_completed")]
        return [progress.epoch for progress in done if progress.phase == phase]


def import_digits(stack: Stack) -> str:
    """Import ten pictures of each digit and return the snapshot's name."""
    folder = stack.import_root / "digits"
    digits = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == digit][:10]):
            Image.fromarray((image * 15).astype("uint8")).resize((64, 64)).save(folder / str(digit) / f"{number}.png")
    with stack.stubs() as (datasets, _):
        return import_folder(datasets, create_dataset(datasets, "digits"), folder).name


def packaged_weights() -> bytes:
    """EfficientNet-Lite0's weights, as their package has them."""
    weights = get_facts("efficientnet_lite0").packaged
    found = importlib.util.find_spec(weights.package)
    return (Path(found.origin).parent / weights.path).read_bytes()


def weights_messages(data: bytes, base_model: str) -> Iterator[training_service_pb2.ImportBaseModelWeightsRequest]:
    """The messages that bring weights in."""
    sha256 = hashlib.sha256(data).hexdigest()
    header = training_service_pb2.WeightsHeader(base_model=base_model, sha256=sha256, size_bytes=len(data))
    yield training_service_pb2.ImportBaseModelWeightsRequest(header=header)
    for start in range(0, len(data), 2**20):
        yield training_service_pb2.ImportBaseModelWeightsRequest(chunk=data[start : start + 2**20])
