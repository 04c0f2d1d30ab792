"""Training runs and their events in SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.kernel.errors import AlreadyExistsError, NotFoundError
from enxerto.kernel.names import ProjectName, RunName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.runtime.sql import reader, transaction
from enxerto.training.adapters import codec, sql_requests
from enxerto.training.adapters.tables import run_events, runs
from enxerto.training.domain import EventBody, ResultArtifact, RunEvent, RunState, TrainingRun
from enxerto.training.errors import StaleRevisionError
from enxerto.training.ports import Idempotency

_ACTIVE = [state.value for state in RunState if not state.final]
_FINAL = [state.value for state in RunState if state.final]


class SqlRunStore:
    """A `RunStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, run: TrainingRun, request: Idempotency | None = None) -> TrainingRun:
        """Add a run with its first event."""
        name, scope = run.name, _scope(run.name.parent)
        try:
            async with transaction(self._engine) as connection:
                taken = select(runs.c.uid).where(_is_run(name))
                error = AlreadyExistsError("TrainingRun", str(name))
                if existing := await sql_requests.find_or_free(connection, scope, request, taken, error):
                    return await self._get(connection, RunName.parse(existing))
                await connection.execute(
                    insert(runs).values(
                        project=name.project,
                        run=name.run,
                        uid=run.uid,
                        spec=codec.spec_to_json(run.spec),
                        labels=dict(run.labels),
                        sweep=run.sweep.sweep if run.sweep else "",
                        create_time=run.create_time,
                        last_cursor=1,
                        **_changing(run),
                    )
                )
                await _append(connection, run.uid, 0, [(run.create_time, run.state_event())])
                await sql_requests.remember(connection, scope, request, name)
        except IntegrityError:
            # Someone else was first; the second look decides between "the same request" and "already there".
            return await self.create(run, request)
        return run

    async def find_request(self, parent: ProjectName, request: Idempotency) -> TrainingRun | None:
        """The run that this request has created before."""
        async with transaction(reader(self._engine)) as connection:
            existing = await sql_requests.find(connection, _scope(parent), request)
            return await self._get(connection, RunName.parse(existing)) if existing else None

    async def get(self, name: RunName) -> TrainingRun:
        """Read one."""
        async with transaction(reader(self._engine)) as connection:
            return await self._get(connection, name)

    async def _get(self, connection: AsyncConnection, name: RunName) -> TrainingRun:
        row = (await connection.execute(select(runs).where(_is_run(name)))).one_or_none()
        if row is None:
            raise NotFoundError("TrainingRun", str(name))
        return _run(row)

    async def list_runs(self, parent: ProjectName, page: PageRequest) -> Page[TrainingRun]:
        """Runs, newest first."""
        query = select(runs).where(runs.c.project == parent.project)
        if page.after:
            query = query.where(runs.c.row < int(page.after))
        async with transaction(reader(self._engine)) as connection:
            rows = (await connection.execute(query.order_by(runs.c.row.desc()).limit(page.size + 1))).all()
        keys = [str(row.row) for row in rows[: page.size]]
        return Page([_run(row) for row in rows[: page.size]], keys[-1] if len(rows) > page.size else "", keys)

    async def list_active(self) -> Sequence[TrainingRun]:
        """Every run that is not final, oldest first."""
        async with transaction(reader(self._engine)) as connection:
            query = select(runs).where(runs.c.state.in_(_ACTIVE)).order_by(runs.c.row)
            return [_run(row) for row in await connection.execute(query)]

    async def save(self, run: TrainingRun, events: Sequence[tuple[datetime, EventBody]] = ()) -> TrainingRun:
        """Store a transition and append its events in one transaction."""
        saved = replace(run, revision=run.revision + 1)
        async with transaction(self._engine) as connection:
            changed = await connection.execute(
                update(runs)
                .where(runs.c.uid == run.uid, runs.c.revision == run.revision)
                .values(**_changing(saved), last_cursor=runs.c.last_cursor + len(events))
                .returning(runs.c.last_cursor)
            )
            last_cursor = changed.scalar_one_or_none()
            if last_cursor is None:
                raise StaleRevisionError(run.name)
            if events:
                await _append(connection, run.uid, last_cursor - len(events), events)
        return saved

    async def list_events(self, uid: str, after_cursor: int, limit: int) -> Sequence[RunEvent]:
        """Events after a cursor, in order."""
        query = select(run_events).where(run_events.c.uid == uid, run_events.c.cursor > after_cursor)
        async with transaction(reader(self._engine)) as connection:
            rows = await connection.execute(query.order_by(run_events.c.cursor).limit(limit))
            return [RunEvent(row.cursor, row.time, codec.event_body(row.body)) for row in rows]

    async def list_kept_logs(self, ended_before: datetime, limit: int) -> Sequence[str]:
        """Runs that ended before then and whose logs may still be kept, by uid."""
        query = select(runs.c.uid).where(runs.c.log_kept, runs.c.state.in_(_FINAL), runs.c.end_time < ended_before)
        async with transaction(reader(self._engine)) as connection:
            return (await connection.execute(query.order_by(runs.c.row).limit(limit))).scalars().all()

    async def note_deleted_log(self, uid: str) -> None:
        """Nothing of this run's log is kept any more."""
        async with transaction(self._engine) as connection:
            await connection.execute(update(runs).where(runs.c.uid == uid).values(log_kept=False))

    async def count_by_state(self) -> Mapping[RunState, int]:
        """How many runs are in each state."""
        async with transaction(reader(self._engine)) as connection:
            rows = await connection.execute(select(runs.c.state, func.count()).group_by(runs.c.state))
            return {RunState(state): count for state, count in rows}


def _scope(parent: ProjectName) -> str:
    return f"runs:{parent.project}"


def _is_run(name: RunName) -> Any:
    return and_(runs.c.project == name.project, runs.c.run == name.run)


async def _append(
    connection: AsyncConnection, uid: str, last_cursor: int, events: Sequence[tuple[datetime, EventBody]]
) -> None:
    rows = [
        {"uid": uid, "cursor": cursor, "time": time, "body": codec.body_to_json(body)}
        for cursor, (time, body) in enumerate(events, start=last_cursor + 1)
    ]
    await connection.execute(insert(run_events), rows)


def _changing(run: TrainingRun) -> dict[str, Any]:
    return {
        "state": run.state.value,
        "error": run.error,
        "progress": asdict(run.progress) if run.progress else None,
        "metrics": [asdict(metric) for metric in run.metrics],
        "model_version": run.model_version,
        "stop_reason": run.stop_reason,
        "attempt": run.attempt,
        "announced": run.announced,
        "submitted": run.submitted,
        "use_gpu": run.use_gpu,
        "losses": run.losses,
        "checkpoint": codec.checkpoint_to_json(run.checkpoint) if run.checkpoint else None,
        "files": [asdict(one) for one in run.files],
        "waits_for": run.waits_for,
        "log_seq": run.log_seq,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "update_time": run.update_time,
        "revision": run.revision,
    }


def _run(row: Row[Any]) -> TrainingRun:
    return TrainingRun(
        name=RunName(row.project, row.run),
        uid=row.uid,
        spec=codec.spec_from_json(row.spec),
        create_time=row.create_time,
        update_time=row.update_time,
        labels=row.labels,
        state=RunState(row.state),
        error=row.error,
        progress=codec.progress_from_json(row.progress) if row.progress else None,
        metrics=codec.metrics_from_json(row.metrics),
        model_version=row.model_version,
        stop_reason=row.stop_reason,
        start_time=row.start_time,
        end_time=row.end_time,
        attempt=row.attempt,
        announced=row.announced,
        submitted=row.submitted,
        use_gpu=row.use_gpu,
        losses=row.losses,
        checkpoint=codec.checkpoint_from_json(row.checkpoint) if row.checkpoint else None,
        files=tuple(ResultArtifact(**one) for one in row.files),
        sweep=SweepName(row.project, row.sweep) if row.sweep else None,
        waits_for=row.waits_for,
        log_seq=row.log_seq,
        revision=row.revision,
    )
