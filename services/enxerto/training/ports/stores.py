"""What keeps datasets, training runs and sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from enxerto.kernel.names import DatasetName, ProjectName, RunName, SnapshotName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import Dataset, EventBody, RunEvent, RunState, Snapshot, Source, Sweep, TrainingRun


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

    async def find_snapshot(self, parent: DatasetName, request: Idempotency) -> Snapshot | None:
        """The snapshot that this request has created before; raises RequestIdReusedError."""
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

    async def list_kept_logs(self, ended_before: datetime, limit: int) -> Sequence[str]:
        """Runs that ended before then and whose logs may still be kept, by uid."""
        ...

    async def note_deleted_log(self, uid: str) -> None:
        """Nothing of this run's log is kept any more."""
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
