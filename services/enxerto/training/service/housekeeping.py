"""The loop that clears away what nobody needs.

Archives after their import, refused weights, halves of uploads, and the logs of runs that have ended.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import UnavailableError
from enxerto.training.domain import UploadSource
from enxerto.training.ports import DatasetStore, Leftovers, RunStore, Upload

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 900.0
_LOGS_AT_ONCE = 100


class Housekeeping:
    """Deletes leftovers once they are old.

    A snapshot that is READY has its own copy of everything, so that only one in IMPORTING holds its archive. Weights
    are received apart from the blobs that snapshots, runs and accepted weights are made of, and only there is deleted.
    What a job has logged is in the run's own events by the time that the run is final, and nobody reads on after that.

    Args:
        datasets: tells which archives imports wait for.
        runs: tells which runs have ended, and whose logs are gone.
        leftovers: where bytes are received, and logs lie.
        clock: the time.
        keep_s: how old what is deleted must be.
        references: held while a snapshot comes to refer to an archive.
    """

    def __init__(
        self,
        datasets: DatasetStore,
        runs: RunStore,
        leftovers: Leftovers,
        clock: Clock,
        *,
        keep_s: float,
        references: asyncio.Lock,
    ) -> None:
        self._datasets = datasets
        self._runs = runs
        self._leftovers = leftovers
        self._clock = clock
        self._keep = timedelta(seconds=keep_s)
        self._references = references

    async def run(self) -> None:
        """Clear for as long as the process lives."""
        while True:
            await self.step()
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def step(self) -> None:
        """Clear once; what cannot be reached is left for the next time."""
        before = self._clock.now() - self._keep
        try:
            uploads = await self._clear_uploads(before)
            weights = await self._leftovers.delete_received_weights(before)
            halves = await self._leftovers.clear_scratch(before)
            entries = await self._clear_logs(before)
        except (UnavailableError, OSError) as error:
            logger.warning("leftovers cannot be cleared", extra={"error": str(error)})
            return
        if uploads or weights or halves or entries:
            extra = {"uploads": uploads, "weights": weights, "halves": halves, "log_entries": entries}
            logger.info("leftovers cleared", extra=extra)

    async def _clear_logs(self, before: datetime) -> int:
        deleted = 0
        while ended := await self._runs.list_kept_logs(before, _LOGS_AT_ONCE):
            for uid in ended:
                deleted += await self._leftovers.delete_log(uid)
                await self._runs.note_deleted_log(uid)
        return deleted

    async def _clear_uploads(self, before: datetime) -> int:
        deleted = 0
        for upload in await self._leftovers.old_uploads(before):
            async with self._references:
                if upload not in await self._awaited():
                    deleted += await self._leftovers.delete_upload(upload, before)
        return deleted

    async def _awaited(self) -> set[Upload]:
        importing = await self._datasets.list_importing()
        return {
            Upload(snapshot.name.project, snapshot.source.sha256)
            for snapshot in importing
            if isinstance(snapshot.source, UploadSource)
        }
