"""What keeps uploads, and reads labelled images from a source."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from enxerto.kernel.errors import EnxertoError
from enxerto.training.domain import DatasetValidation, Finding, Snapshot, SnapshotContent, Source
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Task


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


class ImportRefusedError(Exception):
    """The images have errors; nothing was stored."""

    def __init__(
        self, error: EnxertoError, findings: tuple[Finding, ...], statistics: DatasetStatistics | None = None
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.findings = findings
        self.statistics = statistics


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
