"""The loop that imports snapshots: those just created, and those that a stopped process left behind."""

import asyncio
import logging
import time

from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import DataLossError, EnxertoError, UnavailableError
from enxerto.training.domain import Snapshot
from enxerto.training.errors import StaleRevisionError
from enxerto.training.ports import DatasetStore, Importer, ImportRefusedError, StatusEncoder, Telemetry
from enxerto.training.service.signals import Signals, wait

logger = logging.getLogger(__name__)

IMPORTS = "imports"
"""Signal: a snapshot waits to be imported."""
_LOOK_AGAIN_S = 30.0
_RETRY_S = 5.0


class Imports:
    """Drives every snapshot in IMPORTING to READY or FAILED."""

    def __init__(
        self,
        *,
        store: DatasetStore,
        importer: Importer,
        encode: StatusEncoder,
        telemetry: Telemetry,
        signals: Signals,
        clock: Clock,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._store = store
        self._importer = importer
        self._encode = encode
        self._telemetry = telemetry
        self._signals = signals
        self._clock = clock
        self._retry_s = retry_s

    async def run(self) -> None:
        """Import for as long as the process lives."""
        running: dict[str, asyncio.Task[None]] = {}
        with self._signals.listen(IMPORTS) as woken:
            async with asyncio.TaskGroup() as group:
                while True:
                    running = {name: task for name, task in running.items() if not task.done()}
                    try:
                        waiting = await self._store.list_importing()
                    except UnavailableError as error:
                        logger.warning("imports cannot be listed", extra={"error": str(error)})
                        waiting = ()
                    for snapshot in waiting:
                        if str(snapshot.name) not in running:
                            running[str(snapshot.name)] = group.create_task(self.import_one(snapshot))
                    await wait(woken, _LOOK_AGAIN_S)

    async def import_one(self, snapshot: Snapshot) -> None:
        """Import one snapshot and store the outcome; raises nothing, so that it ends no other's import."""
        started = time.monotonic()
        extra: dict[str, object] = {"snapshot": str(snapshot.name)}
        logger.info("import started", extra=extra)
        try:
            ended = await self._end(snapshot)
        except StaleRevisionError:
            logger.info("import was finished elsewhere", extra=extra)
            return
        except Exception:
            logger.exception("import cannot be ended", extra=extra)
            return
        seconds = time.monotonic() - started
        self._telemetry.snapshot_imported(ended.state, seconds)
        extra |= {"state": ended.state.value, "findings": ended.finding_count, "duration_s": round(seconds, 3)}
        logger.info("import ended", extra=extra)

    async def _end(self, snapshot: Snapshot) -> Snapshot:
        try:
            return await self._save(await self._outcome(snapshot))
        except StaleRevisionError:
            raise
        except Exception:
            logger.exception("import failed", extra={"snapshot": str(snapshot.name)})
            message = f"{snapshot.name} could not be imported; the service's log tells why"
            return await self._save(snapshot.fail(self._encode(DataLossError(message)), (), now=self._clock.now()))

    async def _outcome(self, snapshot: Snapshot) -> Snapshot:
        while True:
            try:
                dataset = await self._store.get_dataset(snapshot.name.parent)
                done = await self._importer.run(snapshot, dataset.task)
                return snapshot.ready(done.content, done.findings, now=self._clock.now(), statistics=done.statistics)
            except ImportRefusedError as refused:
                error = self._encode(refused.error)
                return snapshot.fail(error, refused.findings, now=self._clock.now(), statistics=refused.statistics)
            except UnavailableError as error:
                await self._wait(snapshot, error)
            except EnxertoError as error:
                return snapshot.fail(self._encode(error), (), now=self._clock.now())

    async def _save(self, ended: Snapshot) -> Snapshot:
        """Store an outcome, however long the store is away: what was imported is not imported again for that."""
        while True:
            try:
                return await self._store.save_snapshot(ended)
            except UnavailableError as error:
                await self._wait(ended, error)

    async def _wait(self, snapshot: Snapshot, error: UnavailableError) -> None:
        logger.warning("import waits", extra={"snapshot": str(snapshot.name), "error": str(error)})
        await asyncio.sleep(self._retry_s)
