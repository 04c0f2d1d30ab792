"""A store that wakes whoever waits for a change of a deployment."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence

from enxerto.inference.domain import Deployment, ServableVersion, State
from enxerto.inference.errors import DeploymentNotFoundError, ServiceStoppingError
from enxerto.inference.ports import DeploymentStore
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName
from enxerto.kernel.paging import Page, PageRequest

_LOOK_AGAIN_S = 2.0
"""What another process wrote is seen after so long at the latest."""


class WatchedStore:
    """A `DeploymentStore` over another one; every write wakes the watchers of that deployment."""

    def __init__(self, store: DeploymentStore) -> None:
        self._store = store
        self._waiting: dict[DeploymentName, set[asyncio.Event]] = defaultdict(set)
        self._stopping = False

    async def create(self, deployment: Deployment, request_id: str) -> Deployment:
        """See `DeploymentStore.create`."""
        created = await self._store.create(deployment, request_id)
        self._wake(deployment.name)
        return created

    async def get(self, name: DeploymentName) -> Deployment:
        """See `DeploymentStore.get`."""
        return await self._store.get(name)

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """See `DeploymentStore.list`."""
        return await self._store.list(parent, page)

    async def all(self) -> Sequence[Deployment]:
        """See `DeploymentStore.all`."""
        return await self._store.all()

    async def replace(self, deployment: Deployment) -> Deployment:
        """See `DeploymentStore.replace`."""
        written = await self._store.replace(deployment)
        self._wake(deployment.name)
        return written

    async def remove(self, name: DeploymentName) -> None:
        """See `DeploymentStore.remove`."""
        await self._store.remove(name)
        self._wake(name)

    async def keep_facts(self, name: DeploymentName, versions: Collection[ServableVersion]) -> None:
        """See `DeploymentStore.keep_facts`."""
        await self._store.keep_facts(name, versions)

    async def facts(self, name: DeploymentName, version: VersionName) -> ServableVersion | None:
        """See `DeploymentStore.facts`."""
        return await self._store.facts(name, version)

    async def watch(self, name: DeploymentName, after_cursor: int) -> AsyncIterator[tuple[Deployment, int]]:
        """The deployment as it is, unless it is as at the cursor, and again after each change; ends when it is removed.

        Raises:
            DeploymentNotFoundError: there is none when the watch begins.
            ServiceStoppingError: the process drains; ask again with the last cursor.
        """
        cursor, deleting = after_cursor, False
        deployment = await self._store.get(name)
        with self._listen(name) as woken:
            while True:
                if deployment.cursor != cursor:
                    cursor, deleting = deployment.cursor, deployment.state is State.DELETING
                    yield deployment, cursor
                if self._stopping:
                    raise ServiceStoppingError
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), _LOOK_AGAIN_S)
                woken.clear()
                try:
                    deployment = await self._store.get(name)
                except DeploymentNotFoundError:
                    if deleting:
                        return
                    raise

    def stop(self) -> None:
        """End all watches: the process drains."""
        self._stopping = True
        for name in list(self._waiting):
            self._wake(name)

    def _wake(self, name: DeploymentName) -> None:
        for event in self._waiting.get(name, ()):
            event.set()

    @contextlib.contextmanager
    def _listen(self, name: DeploymentName) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting[name].add(event)
        try:
            yield event
        finally:
            self._waiting[name].discard(event)
            if not self._waiting[name]:
                del self._waiting[name]
