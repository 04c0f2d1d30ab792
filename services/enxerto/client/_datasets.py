"""Data sets: import, look, validate."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enxerto.client import _converters, _results
from enxerto.client._archive import Archive
from enxerto.client._calls import Calls, Progressed, Uploaded
from enxerto.client._errors import AlreadyExistsError, FailedPreconditionError, ImportFailedError, NotFoundError
from enxerto.client._waiting import poll
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from enxerto.type.v1 import task_pb2

_URI = re.compile(r"^[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a source is read; see `import_dataset`."""

    server_side: bool
    split_seed: int
    timeout_s: float
    uploaded: Uploaded | None


class DatasetCalls(Calls):
    """Datasets and snapshots."""

    def import_dataset(
        self,
        name: str,
        path: Path | str,
        *,
        task: _results.Task | str | None = None,
        server_side: bool = False,
        split_seed: int = 0,
        wait: bool = True,
        timeout_s: float = 3600.0,
        uploaded: Uploaded | None = None,
    ) -> _results.Snapshot:
        """Import labelled images into a new snapshot. Their format is found by looking.

        Args:
            name: the dataset; created when it does not exist.
            path: a folder, or a tar or zip of one, streamed to the service with bounded memory; or `s3://…` or `gs://…`,
                which the service reads itself.
            task: what the annotations answer; for a new dataset CLASSIFICATION when left out.
            server_side: `path` is on the service's machine instead, below a folder that its operator allows.
            split_seed: seed of the split, when the source is not split into `train`, `val` and `test` already.
            wait: return when the snapshot is READY, instead of at once.
            timeout_s: deadline of the upload and of the wait, each.
            uploaded: told of the upload's progress.

        Raises:
            ImportFailedError: names every bad file.
            FailedPreconditionError: the dataset is there, for another task.
        """
        # The name is checked before gigabytes are sent.
        dataset = self._ensure_dataset(name, task)
        source = self._source(dataset, path, _Reading(server_side, split_seed, timeout_s, uploaded))
        created = self._call(
            self._stubs.datasets.CreateSnapshot,
            dataset_service_pb2.CreateSnapshotRequest(
                parent=dataset, snapshot=dataset_pb2.Snapshot(source=source), request_id=uuid.uuid4().hex
            ),
        )
        snapshot = _converters.snapshot(created)
        return self.wait_snapshot(snapshot.name, timeout_s=timeout_s) if wait else snapshot

    def validate_dataset(
        self,
        name: str,
        path: Path | str,
        *,
        task: _results.Task | str | None = None,
        server_side: bool = False,
        split_seed: int = 0,
        timeout_s: float = 3600.0,
        uploaded: Uploaded | None = None,
        progressed: Progressed | None = None,
    ) -> _results.ValidationReport:
        """Look at labelled images as an import would, and store no snapshot of them; see `import_dataset`.

        A dataset that is not there yet is not made, so that its task stays open: the images are looked at for
        `validation-classification` and so on, which are there for that alone.

        Args:
            name: the dataset that they are meant for.
            path: as for an import.
            task: what the annotations answer; without it that of the dataset, or CLASSIFICATION.
            server_side: as for an import.
            split_seed: as for an import.
            timeout_s: deadline of the upload and of the look, each.
            uploaded: told of the upload's progress.
            progressed: told how many images were looked at.

        Raises:
            FailedPreconditionError: the dataset is there, for another task.
        """
        try:
            dataset = self._for_task(self.dataset(name), task)
        except NotFoundError:
            parent = self._names.dataset(name).partition("/datasets/")[0]
            dataset = self._ensure_dataset(f"{parent}/datasets/validation-{_task(task).lower()}", task)
        source = self._source(dataset, path, _Reading(server_side, split_seed, timeout_s, uploaded))
        request = dataset_service_pb2.ValidateDatasetRequest(dataset=dataset, source=source)
        send = self._stubs.datasets.ValidateDataset
        return _converters.validation(self._measured(send, request, "report", progressed, timeout_s))

    def _ensure_dataset(self, name: str, task: _results.Task | str | None) -> str:
        """Full name of a dataset that is there now."""
        dataset = self._names.dataset(name)
        parent, _, dataset_id = dataset.partition("/datasets/")
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=parent,
            dataset_id=dataset_id,
            dataset=dataset_pb2.Dataset(task=task_pb2.Task.Value(f"TASK_{_task(task)}")),
            request_id=uuid.uuid4().hex,
        )
        try:
            self._call(self._stubs.datasets.CreateDataset, request)
        except AlreadyExistsError:
            return self._for_task(self.dataset(dataset), task)
        return dataset

    @staticmethod
    def _for_task(dataset: _results.Dataset, task: _results.Task | str | None) -> str:
        """Full name of a dataset, when it is for the task; none is any."""
        wanted = dataset.task if task is None else _task(task)
        if dataset.task is not wanted:
            raise FailedPreconditionError(
                f"{dataset.name} is for {dataset.task}, not for {wanted}, and stays so: choose another name",
                code="FAILED_PRECONDITION",
                reason="TASK_MISMATCH",
            )
        return dataset.name

    def _source(self, dataset: str, path: Path | str, reading: _Reading) -> dataset_pb2.SnapshotSource:
        source = dataset_pb2.SnapshotSource(split_seed=reading.split_seed)
        if isinstance(path, str) and _URI.match(path):
            source.uri = path
        elif reading.server_side:
            source.path = str(path)
        else:
            parent = dataset.partition("/datasets/")[0]
            source.upload = self._upload(Archive(Path(path)), parent, reading.timeout_s, reading.uploaded)
        return source

    def _upload(self, archive: Archive, parent: str, timeout_s: float, uploaded: Uploaded | None) -> str:
        sha256, size_bytes = archive.measure()

        def messages() -> Iterator[dataset_service_pb2.UploadArchiveRequest]:
            header = dataset_service_pb2.ArchiveHeader(parent=parent, sha256=sha256, size_bytes=size_bytes)
            yield dataset_service_pb2.UploadArchiveRequest(header=header)
            sent = 0
            for chunk in archive.chunks():
                yield dataset_service_pb2.UploadArchiveRequest(chunk=chunk)
                sent += len(chunk)
                if uploaded:
                    uploaded(sent, size_bytes)

        answer = self._call(self._stubs.datasets.UploadArchive, messages, timeout_s)
        name: str = answer.upload
        return name

    def wait_snapshot(self, name: str, *, timeout_s: float = 3600.0) -> _results.Snapshot:
        """Wait until a snapshot is READY.

        Raises:
            ImportFailedError: it FAILED; the error names every bad file.
            DeadlineExceededError: it was still importing.
        """
        state = _results.SnapshotState

        def look() -> _results.Snapshot | None:
            snapshot = self.snapshot(name)
            return snapshot if snapshot.state in (state.READY, state.FAILED) else None

        snapshot = poll(look, f"import of {name}", timeout_s)
        if snapshot.state is state.FAILED:
            failure = snapshot.error
            raise ImportFailedError(
                failure.message if failure else f"import of {name} failed",
                code=failure.code if failure else "FAILED_PRECONDITION",
                reason=failure.reason if failure else "IMPORT_FAILED",
                findings=snapshot.findings,
                finding_count=snapshot.finding_count,
            )
        return snapshot

    def snapshot(self, name: str) -> _results.Snapshot:
        """Read a snapshot by its full name."""
        request = dataset_service_pb2.GetSnapshotRequest(name=name)
        return _converters.snapshot(self._call(self._stubs.datasets.GetSnapshot, request))

    def dataset(self, name: str) -> _results.Dataset:
        """Read a dataset."""
        request = dataset_service_pb2.GetDatasetRequest(name=self._names.dataset(name))
        return _converters.dataset(self._call(self._stubs.datasets.GetDataset, request))

    def datasets(self, limit: int | None = None) -> Iterator[_results.Dataset]:
        """The project's datasets, by name."""
        request = dataset_service_pb2.ListDatasetsRequest(parent=self._names.project)
        return map(_converters.dataset, self._pages(self._stubs.datasets.ListDatasets, request, "datasets", limit))


def _task(task: _results.Task | str | None) -> _results.Task:
    if task is None:
        return _results.Task.CLASSIFICATION
    known = [one for one in _results.Task if one is not _results.Task.UNSPECIFIED]
    for one in known:
        if one == str(task).upper():
            return one
    raise ValueError(f"{task!r} is not a task: {', '.join(known)}")
