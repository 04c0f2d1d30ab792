"""The pool: replicas that answer for all shared deployments, and which of them answers for which version."""

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

from enxerto.inference.domain import Application, ApplicationStatus, Endpoint, Occupancy, Pool
from enxerto.inference.errors import ReplicasUnavailableError
from enxerto.inference.ports import Meter, Replicas
from enxerto.kernel.names import VersionName

logger = logging.getLogger(__name__)


class Pooling:
    """Places versions on the pool's replicas, tells each what it is for, and reads what it holds."""

    def __init__(self, pool: Pool, replicas: Replicas, meter: Meter) -> None:
        self._pool = pool
        self._replicas = replicas
        self._meter = meter
        self._seen: dict[Endpoint, Occupancy] = {}

    def hosts(self, applications: Iterable[Application]) -> frozenset[Application | Pool]:
        """What the cluster has to run for these: the dedicated ones, and the pool when any is shared."""
        return frozenset(map(self.host, applications))

    def host(self, application: Application) -> Application | Pool:
        """What the cluster runs for an application: itself, or the pool."""
        return self._pool if application.shared else application

    def status(self, application: Application, pool: ApplicationStatus) -> ApplicationStatus:
        """How a shared application fares, with the replicas that answer for it.

        Rendezvous hashing by the version (Thaler and Ravishankar, 1998): whoever asks for a model asks the replicas
        that hold it, and when a replica goes, the models of the others stay where they are.
        """
        ranked = sorted(pool.endpoints, key=lambda endpoint: _rank(application.version, endpoint))
        chosen = tuple(ranked[: application.scale.least])
        return replace(pool, endpoints=chosen, running=application.scale.least if chosen else 0)

    async def arrange(self, endpoints: Collection[Endpoint], applications: Iterable[Application]) -> None:
        """Tell every replica what it is for and what stays, before a version is tried on it; count what it holds."""
        shared = [application for application in applications if application.shared]
        versions = {application.version for application in shared}
        pinned = {application.version for application in shared if application.pinned}
        found = await asyncio.gather(*(self._ask(endpoint, versions, pinned) for endpoint in endpoints))
        now = {endpoint: one for endpoint, one in zip(endpoints, found, strict=True) if one is not None}
        self._count(now)
        # One that did not answer is counted on from where it was.
        self._seen = {**{each: self._seen[each] for each in endpoints if each in self._seen}, **now}

    async def _ask(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy | None:
        try:
            return await self._replicas.arrange(endpoint, versions, pinned)
        except ReplicasUnavailableError as error:
            extra = {"endpoint": endpoint.address, "error": error.message}
            logger.warning("a replica of the pool does not answer", extra=extra)
            return None

    def _count(self, now: dict[Endpoint, Occupancy]) -> None:
        for endpoint, one in now.items():
            before = self._seen.get(endpoint)
            if before is None or one.loads < before.loads:
                # It is new, or has started again.
                self._meter.pool_changed(one.loads, one.evictions)
            else:
                self._meter.pool_changed(one.loads - before.loads, one.evictions - before.evictions)
        self._meter.pool_holds(
            sum(one.models for one in now.values()),
            sum(one.held_bytes for one in now.values()),
            sum(one.budget_bytes for one in now.values()),
            sum(one.waiting for one in now.values()),
        )


def _rank(version: VersionName, endpoint: Endpoint) -> bytes:
    return hashlib.blake2b(f"{version}\0{endpoint.address}".encode(), digest_size=8).digest()
