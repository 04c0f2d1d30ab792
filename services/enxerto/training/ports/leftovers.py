"""What may be left where bytes are received, and of logs that have been read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded archive."""

    project: str
    sha256: str


class Leftovers(Protocol):
    """What may be left, and what becomes of it. Deleting what is gone is fine."""

    async def old_uploads(self, before: datetime) -> Sequence[Upload]:
        """Archives that were uploaded, last, before then; raises UnavailableError."""
        ...

    async def delete_upload(self, upload: Upload, before: datetime) -> bool:
        """Delete an archive, unless it has come again since; returns whether. Raises UnavailableError."""
        ...

    async def delete_received_weights(self, before: datetime) -> int:
        """Delete weights received before then, refused ones and the first copies of others; raises UnavailableError."""
        ...

    async def delete_log(self, uid: str) -> int:
        """Delete every entry of every attempt's log of a run; returns how many. Raises UnavailableError."""
        ...

    async def clear_scratch(self, before: datetime) -> int:
        """Delete what a process that was killed has left of archives and weights that it received."""
        ...
