"""What runs jobs on a cluster, and reads what they leave."""

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Protocol

from enxerto.training.domain import ClusterSize, Inquiry, JobEvent, SnapshotContent, TrainingResult, TrainingRun


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

    async def size(self, own: Collection[str]) -> ClusterSize:
        """What the cluster has in all, and what of it anything but the jobs in `own` holds; raises UnavailableError."""
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
