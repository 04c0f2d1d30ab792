"""The client: the common jobs in a few lines, over plain gRPC."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from enxerto.client import _converters, _images, _results, _watch
from enxerto.client._archive import Archive
from enxerto.client._channel import Tls, call
from enxerto.client._download import download_artifact
from enxerto.client._errors import (
    AlreadyExistsError,
    DeploymentFailedError,
    FailedPreconditionError,
    ImportFailedError,
    TrainingFailedError,
)
from enxerto.client._names import Names
from enxerto.client._stubs import Stubs
from enxerto.client._waiting import poll
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2
from enxerto.registry.v1 import registry_service_pb2
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2, training_run_pb2, training_service_pb2
from enxerto.type.v1 import task_pb2

Uploaded = Callable[[int, int], None]
"""Is told the bytes sent and the bytes in all."""


class Client:
    """Talks to a platform: the local one under ENXERTO_HOME, or the one at the addresses given.

    Names may be short (`flowers`, `flowers@production`) or full (`projects/default/models/flowers/versions/3`). Calls
    that find a service UNAVAILABLE are made again until their deadline. Threads may share a client.

        with Client() as client:
            snapshot = client.import_dataset("flowers", "photos/flowers")
            run = client.wait(client.train(snapshot, model="flowers"))
            client.promote(run.model_version)
            client.deploy("flowers", "flowers@production")
            print(client.classify("flowers", ["photo.jpg"])[0].label)
    """

    def __init__(
        self,
        *,
        registry: str | None = None,
        training: str | None = None,
        inference: str | None = None,
        home: Path | str | None = None,
        project: str = "default",
        tls: Tls | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Say where the services are; nothing is sent yet.

        Args:
            registry: `host:port`; the local platform's when left out.
            training: `host:port`; the local platform's when left out.
            inference: `host:port`; the local platform's when left out.
            home: where the local platform lives; ENXERTO_HOME or `~/.enxerto` when left out.
            project: the project of short names.
            tls: how to speak TLS; plain text when left out, as on loopback.
            timeout_s: deadline of one call, retries included; transfers and waits have longer ones of their own.
        """
        addresses = {"registry": registry, "training": training, "inference": inference}
        self._stubs = Stubs({name: address for name, address in addresses.items() if address}, home, tls)
        self._names = Names(project)
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._stubs.close()

    def _call(self, send: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        return call(send, request, timeout_s=timeout_s or self._timeout_s)

    def _pages(self, send: Callable[..., Any], request: Any, field: str, limit: int | None) -> Iterator[Any]:
        left = limit
        while left is None or left > 0:
            request.page_size = min(left or 200, 200)
            page = self._call(send, request)
            items = getattr(page, field)
            yield from items
            left = None if left is None else left - len(items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # Datasets

    def import_dataset(
        self,
        name: str,
        path: Path | str,
        *,
        server_side: bool = False,
        split_seed: int = 0,
        wait: bool = True,
        timeout_s: float = 3600.0,
        uploaded: Uploaded | None = None,
    ) -> _results.Snapshot:
        """Import a folder of class folders, or a tar or zip of one, into a new snapshot.

        Args:
            name: the dataset; created when it does not exist.
            path: the folder or the archive; streamed to the service with bounded memory.
            server_side: `path` is on the service's machine instead, below a folder that its operator allows.
            split_seed: seed of the split, when the source is not split into `train`, `val` and `test` already.
            wait: return when the snapshot is READY, instead of at once.
            timeout_s: deadline of the upload and of the wait, each.
            uploaded: told of the upload's progress.

        Raises:
            ImportFailedError: names every bad file.
        """
        dataset = self._names.dataset(name)
        parent, _, dataset_id = dataset.partition("/datasets/")
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=parent,
            dataset_id=dataset_id,
            dataset=dataset_pb2.Dataset(task=task_pb2.TASK_CLASSIFICATION),
            request_id=uuid.uuid4().hex,
        )
        # The name is checked before gigabytes are sent.
        try:
            self._call(self._stubs.datasets.CreateDataset, request)
        except AlreadyExistsError:
            self._call(self._stubs.datasets.GetDataset, dataset_service_pb2.GetDatasetRequest(name=dataset))
        source = dataset_pb2.SnapshotSource(split_seed=split_seed)
        if server_side:
            source.path = str(path)
        else:
            source.upload = self._upload(Archive(Path(path)), parent, timeout_s, uploaded)
        created = self._call(
            self._stubs.datasets.CreateSnapshot,
            dataset_service_pb2.CreateSnapshotRequest(
                parent=dataset, snapshot=dataset_pb2.Snapshot(source=source), request_id=uuid.uuid4().hex
            ),
        )
        snapshot = _converters.snapshot(created)
        return self.wait_snapshot(snapshot.name, timeout_s=timeout_s) if wait else snapshot

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

    # Training

    def train(
        self, data: _results.Snapshot | str, *, model: str, base_model: str = "efficientnet-lite0", **settings: Any
    ) -> _results.Run:
        """Start a training run and return it in QUEUED.

        Args:
            data: a snapshot, its full name, or a dataset, whose newest snapshot is taken.
            model: the model that the version is registered under; created when it does not exist.
            base_model: the network to start from; see `base_models`.
            settings: any other field of the contract's TrainingSpec by its name, such as `epochs`, `learning_rate`,
                `strategy="FINE_TUNE"`, `weights="NONE"`, `num_workers` or `seed`. What is left out takes the
                strategy's default.

        Raises:
            InvalidArgumentError: names every bad setting.
            TypeError: a setting that does not exist.
        """
        spec = training_run_pb2.TrainingSpec(
            snapshot=self._snapshot_name(data),
            base_model=self._names.base_model(base_model),
            model=self._names.model(model),
            **_spec_fields(settings),
        )
        request = training_service_pb2.CreateTrainingRunRequest(
            parent=self._names.project,
            training_run=training_run_pb2.TrainingRun(spec=spec),
            request_id=uuid.uuid4().hex,
        )
        return _converters.run(self._call(self._stubs.training.CreateTrainingRun, request))

    def _snapshot_name(self, data: _results.Snapshot | str) -> str:
        if isinstance(data, _results.Snapshot):
            return data.name
        if "/" in data:
            return data
        dataset, _, number = data.partition("@")
        if number:
            return f"{self._names.dataset(dataset)}/snapshots/{number}"
        latest = self.dataset(dataset).latest_snapshot
        if not latest:
            raise FailedPreconditionError(
                f"dataset {dataset!r} has no snapshot that is READY", code="FAILED_PRECONDITION", reason="NO_SNAPSHOT"
            )
        return latest

    def run(self, run: str) -> _results.Run:
        """Read a run."""
        request = training_service_pb2.GetTrainingRunRequest(name=self._names.run(run))
        return _converters.run(self._call(self._stubs.training.GetTrainingRun, request))

    def runs(self, limit: int | None = None) -> Iterator[_results.Run]:
        """The project's runs, newest first."""
        request = training_service_pb2.ListTrainingRunsRequest(parent=self._names.project)
        return map(_converters.run, self._pages(self._stubs.training.ListTrainingRuns, request, "training_runs", limit))

    def watch(
        self, run: _results.Run | str, *, after_cursor: int = 0, patience_s: float = 120.0
    ) -> Iterator[_results.Event]:
        """The run's events until its final state, each exactly once.

        The iterator survives restarts of the service: it connects again and continues after the last event.

        Args:
            run: the run.
            after_cursor: the last event already seen; 0 for all.
            patience_s: how long the service may be away before UnavailableError is raised.
        """
        name = run.name if isinstance(run, _results.Run) else self._names.run(run)
        return _watch.watch(
            self._stubs.training.WatchTrainingRun,
            lambda: self.run(name).state.is_final,
            name,
            after_cursor,
            stream_s=300.0,
            patience_s=patience_s,
        )

    def wait(self, run: _results.Run | str, *, patience_s: float = 120.0) -> _results.Run:
        """Wait until a run has SUCCEEDED.

        Raises:
            TrainingFailedError: it FAILED or was CANCELLED.
        """
        name = run.name if isinstance(run, _results.Run) else self._names.run(run)
        for _event in self.watch(name, patience_s=patience_s):
            pass
        return succeeded(self.run(name))

    def cancel(self, run: _results.Run | str) -> _results.Run:
        """Ask a run to stop; watch it to see it CANCELLED."""
        name = run.name if isinstance(run, _results.Run) else self._names.run(run)
        request = training_service_pb2.CancelTrainingRunRequest(name=name)
        return _converters.run(self._call(self._stubs.training.CancelTrainingRun, request))

    def base_models(self) -> Iterator[_results.BaseModel]:
        """The networks that a run may start from, by name."""
        request = training_service_pb2.ListBaseModelsRequest()
        return map(
            _converters.base_model, self._pages(self._stubs.training.ListBaseModels, request, "base_models", None)
        )

    # Models

    def model(self, name: str) -> _results.Model:
        """Read a model."""
        request = registry_service_pb2.GetModelRequest(name=self._names.model(name))
        return _converters.model(self._call(self._stubs.registry.GetModel, request))

    def models(self, limit: int | None = None) -> Iterator[_results.Model]:
        """The project's models, by name."""
        request = registry_service_pb2.ListModelsRequest(parent=self._names.project)
        return map(_converters.model, self._pages(self._stubs.registry.ListModels, request, "models", limit))

    def version(self, name: str) -> _results.Version:
        """Read a version by number or alias: `flowers@3`, `flowers@production`."""
        request = registry_service_pb2.GetModelVersionRequest(name=self._names.version(name))
        return _converters.version(self._call(self._stubs.registry.GetModelVersion, request))

    def versions(self, model: str, limit: int | None = None) -> Iterator[_results.Version]:
        """A model's versions, newest first."""
        request = registry_service_pb2.ListModelVersionsRequest(parent=self._names.model(model))
        pages = self._pages(self._stubs.registry.ListModelVersions, request, "model_versions", limit)
        return map(_converters.version, pages)

    def promote(self, version: str, alias: str = "production") -> _results.Model:
        """Point an alias to a version. Deployments that name the alias follow without failing a request.

        Args:
            version: by number or by another alias: `flowers@3`, `flowers@candidate`.
            alias: the alias to move; created when it is new.
        """
        name = self.version(version).name
        request = registry_service_pb2.SetAliasRequest(model=name.partition("/versions/")[0], alias=alias, version=name)
        return _converters.model(self._call(self._stubs.registry.SetAlias, request))

    def download(
        self, version: str, folder: Path | str, *, roles: Sequence[str] = (), timeout_s: float = 3600.0
    ) -> list[Path]:
        """Download a version's files; a file that is there already with the right bytes is left alone.

        Args:
            version: by number or alias.
            folder: where to put the files; created when it does not exist.
            roles: only artifacts of these roles (MODEL, REPORT, OTHER); all when empty.
            timeout_s: deadline of each file.

        Raises:
            ChecksumError: the bytes are not what the registry promised; nothing is left under the file's name.
        """
        found = self.version(version)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        parent = "/".join(found.name.split("/")[:2])
        return [
            download_artifact(self._stubs.registry.DownloadBlob, parent, artifact, target, timeout_s)
            for artifact in found.artifacts
            if not roles or artifact.role in roles
        ]

    # Serving

    def deploy(
        self, name: str, version: str, *, replicas: int = 1, wait: bool = True, timeout_s: float = 300.0
    ) -> _results.Deployment:
        """Serve a version under a name, or change what an existing deployment serves without failing a request.

        Args:
            name: the deployment.
            version: by number, or by an alias, which the deployment then follows.
            replicas: processes that share the requests.
            wait: return when the version answers, instead of at once.
            timeout_s: how long to wait.

        Raises:
            DeploymentFailedError: the version does not answer; the message says why.
        """
        full, reference = self._names.deployment(name), self._names.version(version)
        parent, _, deployment_id = full.partition("/deployments/")
        wanted = deployment_pb2.Deployment(model_version=reference, replicas=replicas)
        try:
            request = deployment_service_pb2.CreateDeploymentRequest(
                parent=parent, deployment_id=deployment_id, deployment=wanted, request_id=uuid.uuid4().hex
            )
            answer = self._call(self._stubs.deployments.CreateDeployment, request)
        except AlreadyExistsError:
            wanted.name = full
            update = deployment_service_pb2.UpdateDeploymentRequest(deployment=wanted)
            update.update_mask.paths.extend(["model_version", "replicas"])
            answer = self._call(self._stubs.deployments.UpdateDeployment, update)
        return self._wait_deployment(full, reference, timeout_s) if wait else _converters.deployment(answer)

    def _wait_deployment(self, name: str, reference: str, timeout_s: float) -> _results.Deployment:
        state = _results.DeploymentState

        def look() -> _results.Deployment | None:
            deployment, version = self.deployment(name), self.version(reference).name
            if deployment.target_version != version:
                return None
            answers = deployment.state is state.READY and deployment.serving_version == version
            return deployment if answers or deployment.error or deployment.state is state.FAILED else None

        deployment = poll(look, f"deployment of {name}", timeout_s)
        if failure := deployment.error:
            raise DeploymentFailedError(f"{name}: {failure.message}", code=failure.code, reason=failure.reason)
        return deployment

    def deployment(self, name: str) -> _results.Deployment:
        """Read a deployment."""
        request = deployment_service_pb2.GetDeploymentRequest(name=self._names.deployment(name))
        return _converters.deployment(self._call(self._stubs.deployments.GetDeployment, request))

    def deployments(self, limit: int | None = None) -> Iterator[_results.Deployment]:
        """The project's deployments, by name."""
        request = deployment_service_pb2.ListDeploymentsRequest(parent=self._names.project)
        pages = self._pages(self._stubs.deployments.ListDeployments, request, "deployments", limit)
        return map(_converters.deployment, pages)

    def undeploy(self, name: str) -> None:
        """Drain and remove a deployment."""
        request = deployment_service_pb2.DeleteDeploymentRequest(name=self._names.deployment(name))
        self._call(self._stubs.deployments.DeleteDeployment, request)

    def classify(
        self, deployment: str, images: Sequence[Path | str | bytes], *, top_k: int = 5
    ) -> list[_results.Prediction]:
        """Say what is in each image.

        Args:
            deployment: the deployment to ask.
            images: paths or the bytes of JPEG, PNG, WebP or BMP files; sent in as few requests as the limits allow.
            top_k: classes to return for each image.

        Raises:
            InvalidArgumentError: names every image that cannot be read.
        """
        name = self._names.deployment(deployment)
        answers: list[_results.Prediction] = []
        for batch in _images.batches(images):
            with batch.blaming():
                answers += _converters.predictions(self._call(self._stubs.vision.Classify, batch.request(name, top_k)))
        return answers


def succeeded(run: _results.Run) -> _results.Run:
    """Return a run that SUCCEEDED; raise TrainingFailedError for one that did not."""
    if run.state is not _results.RunState.SUCCEEDED:
        failure = run.error
        raise TrainingFailedError(
            f"{run.name} ended {run.state}" + (f": {failure.message}" if failure else ""),
            code=failure.code if failure else "CANCELLED",
            reason=failure.reason if failure else f"RUN_{run.state}",
        )
    return run


_ENUMS = {
    "weights": (training_run_pb2.Weights, "WEIGHTS_"),
    "strategy": (training_run_pb2.Strategy, "STRATEGY_"),
    "optimizer": (training_run_pb2.Optimizer, "OPTIMIZER_"),
}


def _spec_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as fields of TrainingSpec: None means left out, enums are given by their short names."""
    known = {field.name for field in training_run_pb2.TrainingSpec.DESCRIPTOR.fields}
    if unknown := sorted(set(settings) - known):
        raise TypeError(f"no such training setting: {', '.join(unknown)}")
    fields = {name: value for name, value in settings.items() if value is not None}
    for name, (enum, prefix) in _ENUMS.items():
        if name in fields:
            fields[name] = enum.Value(prefix + str(fields[name]).upper().replace("-", "_"))
    return fields
