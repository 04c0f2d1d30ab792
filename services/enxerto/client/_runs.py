"""Training runs."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from enxerto.client import _converters, _results, _watch
from enxerto.client._calls import Progressed
from enxerto.client._datasets import DatasetCalls
from enxerto.client._download import download_file
from enxerto.client._errors import FailedPreconditionError, TrainingFailedError
from enxerto.client._settings import TrainingSettings, training_spec
from enxerto.training.v1 import training_run_pb2, training_service_pb2

_MEASURE_S = 900.0


class RunCalls(DatasetCalls):
    """Training runs, and what they would take."""

    def train(
        self,
        data: _results.Snapshot | str,
        *,
        model: str,
        base_model: str = "efficientnet-lite0",
        **settings: Unpack[TrainingSettings],
    ) -> _results.Run:
        """Start a training run and return it in QUEUED.

        Args:
            data: a snapshot, its full name, or a dataset, whose newest snapshot is taken.
            model: the model that the version is registered under; created when it does not exist.
            base_model: the network to start from; see `base_models`.
            settings: any other field of the contract's TrainingSpec by its name: `epochs=5`, `strategy="fine-tune"`,
                and groups as mappings: `loss={"label_smoothing": 0.1}`, `stop={"max_duration": 600}`. What is left out
                takes the default of the task and the strategy.

        Raises:
            InvalidArgumentError: names every bad setting.
            TypeError: a setting that does not exist.
            ValueError: a value that its setting does not take.
        """
        request = training_service_pb2.CreateTrainingRunRequest(
            parent=self._names.project,
            training_run=training_run_pb2.TrainingRun(spec=self._spec(data, base_model, model, settings)),
            request_id=uuid.uuid4().hex,
        )
        return _converters.run(self._call(self._stubs.training.CreateTrainingRun, request))

    def estimate(
        self,
        data: _results.Snapshot | str,
        *,
        model: str,
        base_model: str = "efficientnet-lite0",
        progressed: Progressed | None = None,
        timeout_s: float = _MEASURE_S,
        **settings: Unpack[TrainingSettings],
    ) -> _results.Estimate:
        """What `train` with the same arguments would take on this cluster: a few steps are measured.

        Args:
            progressed: told how far the measurement is.
            timeout_s: how long it may take.
        """
        spec = self._spec(data, base_model, model, settings)
        request = training_service_pb2.EstimateTrainingRunRequest(parent=self._names.project, spec=spec)
        send = self._stubs.training.EstimateTrainingRun
        return _converters.estimate(self._measured(send, request, "estimate", progressed, timeout_s))

    def _spec(
        self, data: _results.Snapshot | str, base_model: str, model: str, settings: TrainingSettings
    ) -> training_run_pb2.TrainingSpec:
        # What cannot be meant is said before anything is sent.
        spec = training_spec(settings)
        spec.base_model, spec.model = self._names.base_model(base_model), self._names.model(model)
        spec.snapshot = self._snapshot_name(data)
        return spec

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
        name = self._run_name(run)
        return _watch.watch(
            self._stubs.training.WatchTrainingRun,
            lambda: self.run(name).state.is_final,
            name,
            after_cursor,
            patience_s=patience_s,
        )

    def wait(self, run: _results.Run | str, *, patience_s: float = 120.0) -> _results.Run:
        """Wait until a run has SUCCEEDED.

        Raises:
            TrainingFailedError: it FAILED or was CANCELLED.
        """
        name = self._run_name(run)
        for _event in self.watch(name, patience_s=patience_s):
            pass
        return succeeded(self.run(name))

    def cancel(self, run: _results.Run | str) -> _results.Run:
        """Ask a run to stop; watch it to see it CANCELLED."""
        return self._asked("Cancel", run)

    def pause(self, run: _results.Run | str) -> _results.Run:
        """Stop a run and keep its last checkpoint; read it to see it PAUSED."""
        return self._asked("Pause", run)

    def resume(self, run: _results.Run | str) -> _results.Run:
        """Put a paused run into the queue again; it goes on from its last checkpoint."""
        return self._asked("Resume", run)

    def _asked(self, verb: str, run: _results.Run | str) -> _results.Run:
        request = getattr(training_service_pb2, f"{verb}TrainingRunRequest")(name=self._run_name(run))
        return _converters.run(self._call(getattr(self._stubs.training, f"{verb}TrainingRun"), request))

    def download_run_files(
        self, run: _results.Run | str, folder: Path | str, *, timeout_s: float = 3600.0
    ) -> list[Path]:
        """Download what a run has left besides its version's files.

        Args:
            run: the run.
            folder: where to put the files; created when it does not exist.
            timeout_s: deadline of each file.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        send = self._stubs.training.DownloadRunFile
        return [
            download_file(
                send, training_service_pb2.DownloadRunFileRequest(name=file.name), target / file.filename, timeout_s
            )
            for file in self.run(self._run_name(run)).files
        ]

    def _run_name(self, run: _results.Run | str) -> str:
        return run.name if isinstance(run, _results.Run) else self._names.run(run)


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
