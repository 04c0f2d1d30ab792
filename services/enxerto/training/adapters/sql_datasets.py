"""Datasets and snapshots in SQL."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.kernel.errors import AlreadyExistsError, NotFoundError
from enxerto.kernel.names import DatasetName, ProjectName, SnapshotName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.runtime.sql import reader, transaction
from enxerto.training.adapters import codec, sql_requests
from enxerto.training.adapters.tables import datasets, snapshots
from enxerto.training.domain import Dataset, Finding, Snapshot, SnapshotContent, SnapshotState, Source
from enxerto.training.errors import StaleRevisionError
from enxerto.training.ports import Idempotency
from enxerto.vision.datasets.statistics import DatasetStatistics
from enxerto.vision.specs import Task


class SqlDatasetStore:
    """A `DatasetStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create_dataset(self, dataset: Dataset, request: Idempotency | None = None) -> Dataset:
        """Add a dataset."""
        name = dataset.name
        scope = f"datasets:{name.project}"
        try:
            async with transaction(self._engine) as connection:
                taken = select(datasets.c.revision).where(_is_dataset(name))
                error = AlreadyExistsError("Dataset", str(name))
                if existing := await sql_requests.find_or_free(connection, scope, request, taken, error):
                    return await self._get(connection, DatasetName.parse(existing))
                await connection.execute(
                    insert(datasets).values(
                        project=name.project,
                        dataset=name.dataset,
                        task=dataset.task.value,
                        display_name=dataset.display_name,
                        labels=dict(dataset.labels),
                        snapshot_count=0,
                        create_time=dataset.create_time,
                        update_time=dataset.update_time,
                        revision=dataset.revision,
                    )
                )
                await sql_requests.remember(connection, scope, request, name)
        except IntegrityError:
            # Someone else was first; the second look decides between "the same request" and "already there".
            return await self.create_dataset(dataset, request)
        return dataset

    async def get_dataset(self, name: DatasetName) -> Dataset:
        """Read one."""
        async with transaction(reader(self._engine)) as connection:
            return await self._get(connection, name)

    async def _get(self, connection: AsyncConnection, name: DatasetName) -> Dataset:
        row = (await connection.execute(select(datasets).where(_is_dataset(name)))).one_or_none()
        if row is None:
            raise NotFoundError("Dataset", str(name))
        return _dataset(row)

    async def list_datasets(self, parent: ProjectName, page: PageRequest) -> Page[Dataset]:
        """Datasets by name."""
        query = select(datasets).where(datasets.c.project == parent.project, datasets.c.dataset > page.after)
        async with transaction(reader(self._engine)) as connection:
            rows = (await connection.execute(query.order_by(datasets.c.dataset).limit(page.size + 1))).all()
        items = [_dataset(row) for row in rows[: page.size]]
        return Page(items, items[-1].name.dataset if len(rows) > page.size else "")

    async def create_snapshot(
        self, parent: DatasetName, source: Source, split_seed: int, now: datetime, request: Idempotency | None = None
    ) -> Snapshot:
        """Add the dataset's next snapshot in IMPORTING."""
        scope = f"snapshots:{parent.project}"
        async with transaction(self._engine) as connection:
            # The row's lock numbers the snapshots of one dataset one after the other.
            counted = await connection.execute(
                update(datasets)
                .where(_is_dataset(parent))
                .values(snapshot_count=datasets.c.snapshot_count + 1)
                .returning(datasets.c.snapshot_count)
            )
            number = counted.scalar_one_or_none()
            if number is None:
                raise NotFoundError("Dataset", str(parent))
            if existing := await sql_requests.find(connection, scope, request):
                found = await self._get_snapshot(connection, SnapshotName.parse(existing))
                await connection.rollback()
                return found
            name = SnapshotName(parent.project, parent.dataset, number)
            snapshot = Snapshot(name=name, source=source, split_seed=split_seed, create_time=now, update_time=now)
            await connection.execute(
                insert(snapshots).values(
                    project=name.project,
                    dataset=name.dataset,
                    number=number,
                    source=codec.source_to_json(source),
                    split_seed=split_seed,
                    create_time=now,
                    **_changing(snapshot),
                )
            )
            await sql_requests.remember(connection, scope, request, name)
        return snapshot

    async def find_snapshot(self, parent: DatasetName, request: Idempotency) -> Snapshot | None:
        """The snapshot that this request has created before."""
        async with transaction(reader(self._engine)) as connection:
            existing = await sql_requests.find(connection, f"snapshots:{parent.project}", request)
            return await self._get_snapshot(connection, SnapshotName.parse(existing)) if existing else None

    async def get_snapshot(self, name: SnapshotName) -> Snapshot:
        """Read one."""
        async with transaction(reader(self._engine)) as connection:
            return await self._get_snapshot(connection, name)

    async def _get_snapshot(self, connection: AsyncConnection, name: SnapshotName) -> Snapshot:
        row = (await connection.execute(select(snapshots).where(_is_snapshot(name)))).one_or_none()
        if row is None:
            raise NotFoundError("Snapshot", str(name))
        return _snapshot(row)

    async def list_snapshots(self, parent: DatasetName, page: PageRequest) -> Page[Snapshot]:
        """Snapshots, newest first."""
        query = select(snapshots).where(snapshots.c.project == parent.project, snapshots.c.dataset == parent.dataset)
        if page.after:
            query = query.where(snapshots.c.number < int(page.after))
        async with transaction(reader(self._engine)) as connection:
            await self._get(connection, parent)
            rows = (await connection.execute(query.order_by(snapshots.c.number.desc()).limit(page.size + 1))).all()
        items = [_snapshot(row) for row in rows[: page.size]]
        keys = [str(item.name.number) for item in items]
        return Page(items, keys[-1] if len(rows) > page.size else "", keys)

    async def list_importing(self) -> Sequence[Snapshot]:
        """Every snapshot in IMPORTING, oldest first."""
        query = select(snapshots).where(snapshots.c.state == SnapshotState.IMPORTING.value)
        async with transaction(reader(self._engine)) as connection:
            return [_snapshot(row) for row in await connection.execute(query.order_by(snapshots.c.create_time))]

    async def save_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Store a transition, and move the dataset's newest READY snapshot with it."""
        name = snapshot.name
        saved = replace(snapshot, revision=snapshot.revision + 1)
        async with transaction(self._engine) as connection:
            changed = await connection.execute(
                update(snapshots)
                .where(_is_snapshot(name), snapshots.c.revision == snapshot.revision)
                .values(**_changing(saved))
            )
            if changed.rowcount != 1:
                raise StaleRevisionError(name)
            if snapshot.state is SnapshotState.READY:
                await connection.execute(
                    update(datasets)
                    .where(
                        _is_dataset(DatasetName(name.project, name.dataset)),
                        func.coalesce(datasets.c.latest_ready, 0) < name.number,
                    )
                    .values(
                        latest_ready=name.number,
                        update_time=snapshot.update_time,
                        revision=datasets.c.revision + 1,
                    )
                )
        return saved


def _is_dataset(name: DatasetName) -> Any:
    return and_(datasets.c.project == name.project, datasets.c.dataset == name.dataset)


def _is_snapshot(name: SnapshotName) -> Any:
    return and_(
        snapshots.c.project == name.project, snapshots.c.dataset == name.dataset, snapshots.c.number == name.number
    )


def _dataset(row: Row[Any]) -> Dataset:
    return Dataset(
        name=DatasetName(row.project, row.dataset),
        task=Task(row.task),
        display_name=row.display_name,
        labels=row.labels,
        latest_ready=row.latest_ready,
        create_time=row.create_time,
        update_time=row.update_time,
        revision=row.revision,
    )


def _changing(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "state": snapshot.state.value,
        "error": snapshot.error,
        "findings": [asdict(finding) for finding in snapshot.findings],
        "finding_count": snapshot.finding_count,
        "content": asdict(snapshot.content) if snapshot.content else None,
        "statistics": snapshot.statistics.to_json() if snapshot.statistics else None,
        "update_time": snapshot.update_time,
        "revision": snapshot.revision,
    }


def _snapshot(row: Row[Any]) -> Snapshot:
    content = row.content
    return Snapshot(
        name=SnapshotName(row.project, row.dataset, row.number),
        source=codec.source_from_json(row.source),
        split_seed=row.split_seed,
        create_time=row.create_time,
        update_time=row.update_time,
        state=SnapshotState(row.state),
        error=row.error,
        findings=tuple(Finding(**finding) for finding in row.findings),
        finding_count=row.finding_count,
        content=SnapshotContent(**{**content, "class_names": tuple(content["class_names"])}) if content else None,
        statistics=DatasetStatistics.from_json(row.statistics) if row.statistics else None,
        revision=row.revision,
    )
