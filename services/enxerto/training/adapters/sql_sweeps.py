"""Sweeps in SQL."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.kernel.errors import AlreadyExistsError, NotFoundError
from enxerto.kernel.names import ProjectName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.runtime.sql import reader, transaction
from enxerto.training.adapters import sql_requests, sweep_documents
from enxerto.training.adapters.tables import sweeps
from enxerto.training.domain import Sweep, SweepState
from enxerto.training.errors import StaleRevisionError
from enxerto.training.ports import Idempotency

_ACTIVE = [state.value for state in SweepState if not state.final]


class SqlSweepStore:
    """A `SweepStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, sweep: Sweep, request: Idempotency | None = None) -> Sweep:
        """Add a sweep."""
        name, scope = sweep.name, f"sweeps:{sweep.name.project}"
        try:
            async with transaction(self._engine) as connection:
                taken = select(sweeps.c.uid).where(sweeps.c.project == name.project, sweeps.c.sweep == name.sweep)
                error = AlreadyExistsError("Sweep", str(name))
                if existing := await sql_requests.find_or_free(connection, scope, request, taken, error):
                    return await _get(connection, SweepName.parse(existing))
                await connection.execute(
                    insert(sweeps).values(
                        project=name.project,
                        sweep=name.sweep,
                        uid=sweep.uid,
                        plan=sweep_documents.plan_to_json(sweep.plan),
                        labels=dict(sweep.labels),
                        create_time=sweep.create_time,
                        **_changing(sweep),
                    )
                )
                await sql_requests.remember(connection, scope, request, name)
        except IntegrityError:
            # Someone else was first; the second look decides between "the same request" and "already there".
            return await self.create(sweep, request)
        return sweep

    async def find_request(self, parent: ProjectName, request: Idempotency) -> Sweep | None:
        """The sweep that this request has created before."""
        async with transaction(reader(self._engine)) as connection:
            existing = await sql_requests.find(connection, f"sweeps:{parent.project}", request)
            return await _get(connection, SweepName.parse(existing)) if existing else None

    async def get(self, name: SweepName) -> Sweep:
        """Read one."""
        async with transaction(reader(self._engine)) as connection:
            return await _get(connection, name)

    async def list_sweeps(self, parent: ProjectName, page: PageRequest) -> Page[Sweep]:
        """Sweeps, newest first."""
        query = select(sweeps).where(sweeps.c.project == parent.project)
        if page.after:
            query = query.where(sweeps.c.row < int(page.after))
        async with transaction(reader(self._engine)) as connection:
            rows = (await connection.execute(query.order_by(sweeps.c.row.desc()).limit(page.size + 1))).all()
        return Page([_sweep(row) for row in rows[: page.size]], str(rows[-2].row) if len(rows) > page.size else "")

    async def list_active(self) -> Sequence[Sweep]:
        """Every sweep that is not final, oldest first."""
        async with transaction(reader(self._engine)) as connection:
            query = select(sweeps).where(sweeps.c.state.in_(_ACTIVE)).order_by(sweeps.c.row)
            return [_sweep(row) for row in await connection.execute(query)]

    async def save(self, sweep: Sweep) -> Sweep:
        """Store a transition."""
        saved = replace(sweep, revision=sweep.revision + 1)
        async with transaction(self._engine) as connection:
            changed = await connection.execute(
                update(sweeps)
                .where(sweeps.c.uid == sweep.uid, sweeps.c.revision == sweep.revision)
                .values(**_changing(saved))
                .returning(sweeps.c.row)
            )
            if changed.scalar_one_or_none() is None:
                raise StaleRevisionError(sweep.name)
        return saved


async def _get(connection: AsyncConnection, name: SweepName) -> Sweep:
    query = select(sweeps).where(sweeps.c.project == name.project, sweeps.c.sweep == name.sweep)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFoundError("Sweep", str(name))
    return _sweep(row)


def _changing(sweep: Sweep) -> dict[str, Any]:
    return {
        "state": sweep.state.value,
        "trials": [sweep_documents.trial_to_json(one) for one in sweep.trials],
        "error": sweep.error,
        "end_time": sweep.end_time,
        "update_time": sweep.update_time,
        "revision": sweep.revision,
    }


def _sweep(row: Row[Any]) -> Sweep:
    return Sweep(
        name=SweepName(row.project, row.sweep),
        uid=row.uid,
        plan=sweep_documents.plan_from_json(row.plan),
        create_time=row.create_time,
        update_time=row.update_time,
        labels=row.labels,
        state=SweepState(row.state),
        trials=tuple(sweep_documents.trial_from_json(one) for one in row.trials),
        error=row.error,
        end_time=row.end_time,
        revision=row.revision,
    )
