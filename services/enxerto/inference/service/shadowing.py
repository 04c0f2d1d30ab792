"""Copies of requests for a version whose answers nobody gets."""

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import dataclass, field, replace

from enxerto.inference.domain import Comparison, Payload, Prediction
from enxerto.inference.ports import Meter
from enxerto.inference.service.agreement import agreements, comparable
from enxerto.inference.service.routes import Route
from enxerto.inference.service.routing import Split
from enxerto.kernel.names import DeploymentName

logger = logging.getLogger(__name__)

_MAX_COPIES = 64
_MAX_BYTES = 64 * 2**20
"""Of the waiting requests of a deployment, with the main version's answers to them."""
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Copy:
    payload: Payload
    answer: Prediction
    route: Route
    """To the shadow."""

    @property
    def size_bytes(self) -> int:
        return self.payload.size_bytes + self.answer.size_bytes


@dataclass(slots=True)
class _Lane:
    """The copies of one deployment's requests, answered one after the other."""

    copies: deque[_Copy] = field(default_factory=deque)
    bytes: int = 0
    worker: "asyncio.Task[None] | None" = None
    found: Comparison | None = None
    reported: float = field(default_factory=time.monotonic)


class Shadowing:
    """Asks shadows, compares, and keeps what was found until it is taken. Belongs to one event loop."""

    def __init__(self, meter: Meter, report_s: float) -> None:
        """Begin with nothing found.

        Args:
            meter: counts.
            report_s: what was found for a deployment is given out this often.
        """
        self._meter = meter
        self._report_s = report_s
        self._lanes: dict[DeploymentName, _Lane] = {}

    def offer(self, split: Split, payload: Payload, answer: Prediction) -> None:
        """Maybe copy a request that the main version has answered. Never waits and never raises."""
        shadow = split.shadow
        if shadow is None or not shadow.route.endpoints or not comparable(answer.version.task, payload):
            return
        if random.uniform(0, 100) >= shadow.percent or not shadow.route.takes(payload):  # noqa: S311 - no secret
            return
        lane = self._lanes.setdefault(split.deployment, _Lane())
        copy = _Copy(payload, answer, shadow.route)
        if len(lane.copies) >= _MAX_COPIES or lane.bytes + copy.size_bytes > _MAX_BYTES:
            self._meter.shadow_dropped("queue_full")
            self._note(lane, copy, dropped=1)
            return
        lane.copies.append(copy)
        lane.bytes += copy.size_bytes
        if lane.worker is None or lane.worker.done():
            lane.worker = asyncio.ensure_future(self._work(lane))

    def take(self, name: DeploymentName) -> Comparison | None:
        """What was found for a deployment since it was last taken, if it is time to say so."""
        lane = self._lanes.get(name)
        if lane is None or lane.found is None or time.monotonic() - lane.reported < self._report_s:
            return None
        found, lane.found, lane.reported = lane.found, None, time.monotonic()
        return found

    def give_back(self, name: DeploymentName, found: Comparison) -> None:
        """Keep what could not be stored."""
        lane = self._lanes.setdefault(name, _Lane())
        lane.found = found.add(lane.found) if lane.found else found

    def forget(self, living: frozenset[DeploymentName]) -> None:
        """Give up the copies of all other deployments."""
        for name in set(self._lanes) - living:
            lane = self._lanes.pop(name)
            lane.copies.clear()

    async def _work(self, lane: _Lane) -> None:
        while lane.copies:
            copy = lane.copies.popleft()
            lane.bytes = max(0, lane.bytes - copy.size_bytes)
            try:
                share = await copy.route.submit(copy.payload, _TIMEOUT_S)
                theirs = Prediction(copy.route.version, share.tensors, share.pictures, copy.payload.items, share.timing)
                if share.refusals:
                    raise ValueError(share.refusals[0].message)
                agreed = await asyncio.to_thread(agreements, copy.answer, theirs)
            except Exception as error:  # noqa: BLE001 - whatever it is, no caller may see it
                logger.warning("a shadow did not answer", extra={"error": str(error)})
                self._meter.shadow_dropped("failed")
                self._note(lane, copy, failed=1)
                continue
            self._meter.shadow_compared(copy.answer.version.task, len(agreed), sum(agreed))
            self._note(lane, copy, images=len(agreed), agreed=sum(agreed))

    def _note(
        self, lane: _Lane, copy: _Copy, *, images: int = 0, agreed: float = 0.0, dropped: int = 0, failed: int = 0
    ) -> None:
        blank = Comparison(copy.answer.version.name, copy.route.version.name)
        found = replace(blank, images=images, agreed=agreed, dropped=dropped, failed=failed)
        lane.found = lane.found.add(found) if lane.found else found
