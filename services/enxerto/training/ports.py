"""What the use cases need from the outside. Every store has an in-memory twin that passes the same tests."""

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import DatasetName, ProjectName, RunName, SnapshotName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import (
    ClusterSize,
    Dataset,
    DatasetValidation,
    EventBody,
    Finding,
    Inquiry,
    JobEvent,
    RunEvent,
    RunSpec,
    RunState,
    Snapshot,
    SnapshotContent,
    SnapshotState,
    Source,
    Sweep,
    SweepPlan,
    TrainingResult,
    TrainingRun,
)
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Task

StatusEncoder = Callable[[EnxertoError], bytes]
"""Turns an error into the serialised google.rpc.Status that a failed resource keeps."""


StatusDecoder = Callable[[bytes], EnxertoError]
"""The reverse, for what a job has left."""

TrialSpecs = Callable[[SweepPlan, Mapping[str, str]], RunSpec]
"""Puts a trial's parameters into its sweep's spec; raises InvalidArgumentError when they do not go together."""


SpecDocument = Callable[[RunSpec], Mapping[str, Any]]
"""A run's spec as JSON values, as jobs read it."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Makes a create repeatable."""

    request_id: str
    fingerprint: str
    """Digest of the request's content: the same id must come with the same."""


class DatasetStore(Protocol):
    """Keeps datasets and snapshots."""

    async def create_dataset(self, dataset: Dataset, request: Idempotency | None = None) -> Dataset:
        """Add a dataset.

        Raises:
            AlreadyExistsError: the name is taken.
            RequestIdReusedError: the request id was used for another content.
        """
        ...

    async def get_dataset(self, name: DatasetName) -> Dataset:
        """Read one; raises NotFoundError."""
        ...

    async def list_datasets(self, parent: ProjectName, page: PageRequest) -> Page[Dataset]:
        """Datasets by name."""
        ...

    async def create_snapshot(
        self, parent: DatasetName, source: Source, split_seed: int, now: datetime, request: Idempotency | None = None
    ) -> Snapshot:
        """Add the dataset's next snapshot in IMPORTING; raises NotFoundError, RequestIdReusedError."""
        ...

    async def get_snapshot(self, name: SnapshotName) -> Snapshot:
        """Read one; raises NotFoundError."""
        ...

    async def list_snapshots(self, parent: DatasetName, page: PageRequest) -> Page[Snapshot]:
        """Snapshots, newest first; raises NotFoundError for the dataset."""
        ...

    async def list_importing(self) -> Sequence[Snapshot]:
        """Every snapshot in IMPORTING, oldest first."""
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Store a transition, and move the dataset's newest READY snapshot with it.

        Raises:
            StaleRevisionError: the snapshot changed since it was read.
        """
        ...


class RunStore(Protocol):
    """Keeps training runs and their events."""

    async def create(self, run: TrainingRun, request: Idempotency | None = None) -> TrainingRun:
        """Add a run with its first event; raises AlreadyExistsError, RequestIdReusedError."""
        ...

    async def find_request(self, parent: ProjectName, request: Idempotency) -> TrainingRun | None:
        """The run that this request has created before; raises RequestIdReusedError."""
        ...

    async def get(self, name: RunName) -> TrainingRun:
        """Read one; raises NotFoundError."""
        ...

    async def list_runs(self, parent: ProjectName, page: PageRequest) -> Page[TrainingRun]:
        """Runs, newest first."""
        ...

    async def list_active(self) -> Sequence[TrainingRun]:
        """Every run that is not final, oldest first."""
        ...

    async def save(self, run: TrainingRun, events: Sequence[tuple[datetime, EventBody]] = ()) -> TrainingRun:
        """Store a transition and append its events in one transaction; returns the run with its new revision.

        Raises:
            StaleRevisionError: the run changed since it was read; nothing was stored.
        """
        ...

    async def list_events(self, uid: str, after_cursor: int, limit: int) -> Sequence[RunEvent]:
        """Events after a cursor, in order."""
        ...

    async def count_by_state(self) -> Mapping[RunState, int]:
        """How many runs are in each state."""
        ...


class SweepStore(Protocol):
    """Keeps sweeps."""

    async def create(self, sweep: Sweep, request: Idempotency | None = None) -> Sweep:
        """Add a sweep; raises AlreadyExistsError, RequestIdReusedError."""
        ...

    async def find_request(self, parent: ProjectName, request: Idempotency) -> Sweep | None:
        """The sweep that this request has created before; raises RequestIdReusedError."""
        ...

    async def get(self, name: SweepName) -> Sweep:
        """Read one; raises NotFoundError."""
        ...

    async def list_sweeps(self, parent: ProjectName, page: PageRequest) -> Page[Sweep]:
        """Sweeps, newest first."""
        ...

    async def list_active(self) -> Sequence[Sweep]:
        """Every sweep that is not final, oldest first."""
        ...

    async def save(self, sweep: Sweep) -> Sweep:
        """Store a transition; returns the sweep with its new revision.

        Raises:
            StaleRevisionError: the sweep changed since it was read; nothing was stored.
        """
        ...


class Search(Protocol):
    """Chooses the parameters of one sweep's trials. In memory: it is built again from the trials after a restart."""

    def ask(self, number: int) -> Mapping[str, str]:
        """Parameters of the trial with this number, as text."""
        ...

    def restore(self, number: int, parameters: Mapping[str, str]) -> None:
        """A trial that was begun before this search was built; reports follow as they would have."""
        ...

    def report(self, number: int, step: int, score: float) -> bool:
        """The trial's score after so many epochs, from 1; returns whether it should be stopped for doing worse."""
        ...

    def tell(self, number: int, score: float | None) -> None:
        """The trial is over, with its best score, or None when it failed."""
        ...


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """Weights of a base model that were brought in by hand."""

    base_model: str
    """Name in the catalogue."""
    sha256: str
    size_bytes: int
    import_time: datetime


class WeightsCatalogue(Protocol):
    """Keeps which weights were imported."""

    async def put(self, weights: ImportedWeights) -> None:
        """Note a base model's weights; those noted before are forgotten."""
        ...

    async def all(self) -> Mapping[str, ImportedWeights]:
        """Every base model's weights, by its name in the catalogue."""
        ...


class WeightsVault(Protocol):
    """Keeps the bytes of imported weights where jobs can read them, and a copy in the registry."""

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, bytes]:
        """Store bytes for jobs; they count only once `chunks` has ended. Returns the sha256 and the first bytes.

        The first bytes are as many as the header of a safetensors file takes, at most some megabytes.
        """
        ...

    async def publish(self, sha256: str, size_bytes: int) -> None:
        """Copy to the registry, from where other clusters have it; raises UnavailableError."""
        ...

    async def fetch(self, weights: ImportedWeights) -> None:
        """Copy from the registry for jobs, when it is not there already; raises UnavailableError, DataLossError."""
        ...


Searches = Callable[[SweepPlan], Search]
"""Builds the search of a sweep."""


class UploadStore(Protocol):
    """Keeps uploaded archives by their content."""

    async def put(self, project: str, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Store bytes; they become visible all at once after `chunks` has ended. If it raises, nothing is left."""
        ...


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import stored and found."""

    content: SnapshotContent
    findings: tuple[Finding, ...]
    statistics: DatasetStatistics


class Importer(Protocol):
    """Reads, checks and stores labelled images."""

    async def check(self, project: str, source: Source) -> None:
        """Whether the source may be read and is there, before an import begins.

        Raises:
            PathNotAllowedError: the path lies outside of the allowed folders.
            LocationNotAllowedError: the URI lies outside of the allowed locations.
            FailedPreconditionError: nothing is there.
            NotFoundError: the upload is not there.
        """
        ...

    async def run(self, snapshot: Snapshot, task: Task) -> Imported:
        """Import a snapshot's source.

        Raises:
            ImportRefusedError: carries the findings and the error to store.
            EnxertoError: the source cannot be read at all.
        """
        ...

    def validate(
        self, project: str, source: Source, task: Task, split_seed: int
    ) -> AsyncGenerator[tuple[int, int] | DatasetValidation, None]:
        """Look at a source as an import does and store nothing.

        Gives (images done, images in all) now and then, and what was found last. Closing the iterator stops the work.

        Raises:
            EnxertoError: the source cannot be read at all.
        """
        ...


class ImportRefusedError(Exception):
    """The images have errors; nothing was stored."""

    def __init__(
        self, error: EnxertoError, findings: tuple[Finding, ...], statistics: DatasetStatistics | None = None
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.findings = findings
        self.statistics = statistics


class JobState(enum.StrEnum):
    """What the cluster says of a job."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    UNKNOWN = "UNKNOWN"
    """The cluster has never heard of it, or has forgotten."""

    @property
    def over(self) -> bool:
        """Whether no process of the job is left."""
        return self not in (JobState.WAITING, JobState.RUNNING)


class JobRunner(Protocol):
    """Runs jobs on a cluster."""

    async def submit(
        self, run: TrainingRun, content: SnapshotContent, weights: Mapping[str, str], warnings: Sequence[str]
    ) -> None:
        """Start the run's current attempt; a job that is already there counts as started.

        Args:
            run: what to train.
            content: its snapshot.
            weights: sha256 of imported weights by base model.
            warnings: what the import of the snapshot found, for the report.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        ...

    async def ask(self, inquiry: Inquiry, attempt: int) -> None:
        """Start an attempt at an answer; one that is already there counts as started. Raises UnavailableError."""
        ...

    async def state(self, job_id: str) -> tuple[JobState, str]:
        """What the job does, and the cluster's message; raises UnavailableError."""
        ...

    async def stop(self, job_id: str) -> None:
        """Ask the job to end; one that is over or unknown is fine. Raises UnavailableError."""
        ...

    async def size(self) -> ClusterSize:
        """What the cluster has in all; raises UnavailableError."""
        ...


class JobOutput(Protocol):
    """What jobs leave in the blob store."""

    async def read_events(self, uid: str, attempt: int, after_seq: int) -> Sequence[JobEvent]:
        """Log entries after a position, in order, as many as are there (bounded)."""
        ...

    async def read_result(self, uid: str, attempt: int) -> TrainingResult:
        """The finished job's result; raises DataLossError when it is missing or malformed."""
        ...

    async def read_answer(self, uid: str, attempt: int) -> Mapping[str, Any] | None:
        """What an inquiry's job has answered; None while it has not. Raises DataLossError when it is malformed."""
        ...

    def read_blob(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes of a stored file, at most 1 MiB at once; raises DataLossError."""
        ...


@dataclass(frozen=True, slots=True)
class Registered:
    """A version in the registry."""

    version: str
    """Full name."""
    quarantined: bool


class Registry(Protocol):
    """The model registry."""

    async def register(self, run: TrainingRun, result: TrainingResult) -> Registered:
        """Upload the artefacts and create the version; repeating it creates nothing twice.

        Raises:
            UnavailableError: the registry cannot be reached now.
            RegistryRefusedError: it would refuse again.
        """
        ...


class Telemetry(Protocol):
    """Counts what the domain does."""

    def runs_by_state(self, counts: Mapping[RunState, int]) -> None:
        """How many runs are in each state now."""
        ...

    def run_ended(self, state: RunState, duration_s: float) -> None:
        """A run reached a final state."""
        ...

    def images_trained(self, count: int) -> None:
        """Images went through a network."""
        ...

    def snapshot_imported(self, state: SnapshotState, duration_s: float) -> None:
        """An import ended."""
        ...

    def queue_length(self, count: int) -> None:
        """How many runs wait for the cluster."""
        ...

    def run_waited(self, seconds: float) -> None:
        """A run was submitted so long after it was created or resumed."""
        ...

    def event_lag(self, seconds: float) -> None:
        """How old an event of a job was when watchers could see it."""
        ...
