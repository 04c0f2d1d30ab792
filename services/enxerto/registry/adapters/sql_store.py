"""The registry's metadata in SQLite or PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Integer, RowMapping, Select, Table, column, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.kernel.names import ModelName, ProjectName, VersionName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.registry.adapters import sql_schema as schema
from enxerto.registry.adapters.version_document import from_document, to_document
from enxerto.registry.domain import Blob, Model, ModelContent, Request, State, Version, VersionContent
from enxerto.registry.errors import (
    ModelExistsError,
    ModelNotFoundError,
    RequestIdReusedError,
    StorageUnavailableError,
    VersionNotFoundError,
)
from enxerto.runtime.sql import opened_engine, reader, transaction
from enxerto.vision.specs import Task

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def open_metadata_store(url: str) -> AsyncIterator["SqlMetadataStore"]:
    """Migrate the database and open it.

    Raises:
        StartupError: the URL is bad or the database cannot be reached.
    """
    async with opened_engine(url, MIGRATIONS, "the registry") as engine:
        yield SqlMetadataStore(engine)


class SqlMetadataStore:
    """A `MetadataStore` on SQL; the schema must be there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = reader(engine)

    async def create_model(self, model: Model, request: Request | None) -> Model:
        """Keep a new model, or return what an earlier call with the same request made."""
        parent = model.name.parent
        try:
            async with _transaction(self._engine) as connection:
                if request and (row := await _earlier(connection, parent, "model", request)):
                    return await _read_model(connection, ModelName(parent.project, row["model"]))
                await connection.execute(insert(schema.models).values(_model_values(model)))
                if request:
                    await _remember(connection, model.name, "model", request, number=0, now=model.create_time)
                return model
        except IntegrityError as error:
            # Another process was faster, with the same name or with the same request.
            async with _transaction(self._reader) as connection:
                if request and (row := await _earlier(connection, parent, "model", request)):
                    return await _read_model(connection, ModelName(parent.project, row["model"]))
            raise ModelExistsError(model.name) from error

    async def get_model(self, name: ModelName) -> Model:
        """Read a model."""
        async with _transaction(self._reader) as connection:
            return await _read_model(connection, name)

    async def find_models(self, names: Collection[ModelName]) -> Mapping[ModelName, Model]:
        """Those of the models that there are."""
        rows = await self._find(select(schema.models), schema.models, names)
        return {model.name: model for model in map(_model, rows)}

    async def list_models(self, parent: ProjectName, page: PageRequest) -> Page[Model]:
        """Models of a project by id."""
        table = schema.models
        query = (
            select(table)
            .where(table.c.project == parent.project, table.c.model > page.after)
            .order_by(table.c.model)
            .limit(page.size + 1)
        )
        async with _transaction(self._reader) as connection:
            found = [_model(row) for row in (await connection.execute(query)).mappings()]
        more = len(found) > page.size
        return Page(found[: page.size], found[page.size - 1].name.model if more else "")

    async def update_model(self, name: ModelName, change: Callable[[Model], Model]) -> Model:
        """Replace a model by what `change` makes of it, with no other update in between."""
        async with _transaction(self._engine) as connection:
            current = await _read_model(connection, name, lock=True)
            changed = change(current)
            if changed != current:
                await _write_model(connection, changed)
            return changed

    async def create_version(
        self, parent: ModelName, content: VersionContent, now: datetime, request: Request | None
    ) -> tuple[Version, bool]:
        """Keep the next version, or find what an earlier call with the same request made."""
        try:
            async with _transaction(self._engine) as connection:
                # The model's row is the lock that makes the numbers gapless.
                current = await _read_model(connection, parent, lock=True)
                if request and (row := await _earlier(connection, parent.parent, "version", request)):
                    return await _read_version(connection, _version_name(parent, row)), False
                changed, version = current.next_version(content, now)
                await connection.execute(insert(schema.versions).values(_version_values(version)))
                await _write_model(connection, changed)
                if request:
                    await _remember(connection, parent, "version", request, number=version.name.number, now=now)
                return version, True
        except IntegrityError:
            # The same request id at the same moment, for another model.
            async with _transaction(self._reader) as connection:
                if request and (row := await _earlier(connection, parent.parent, "version", request)):
                    return await _read_version(connection, _version_name(parent, row)), False
            raise

    async def get_version(self, name: VersionName) -> Version:
        """Read a version."""
        async with _transaction(self._reader) as connection:
            return await _read_version(connection, name)

    async def find_states(self, names: Collection[VersionName]) -> Mapping[VersionName, State]:
        """States of those of the versions that there are."""
        table = schema.versions
        query = select(table.c.project, table.c.model, table.c.number, table.c.state)
        rows = await self._find(query, table, names)
        return {VersionName(row["project"], row["model"], row["number"]): State(row["state"]) for row in rows}

    async def list_versions(self, parent: ModelName, page: PageRequest) -> Page[Version]:
        """Versions of a model, newest first."""
        table = schema.versions
        query = (
            select(table)
            .where(table.c.project == parent.project, table.c.model == parent.model)
            .order_by(table.c.number.desc())
            .limit(page.size + 1)
        )
        if page.after:
            query = query.where(table.c.number < int(page.after))
        async with _transaction(self._reader) as connection:
            await _read_model(connection, parent)
            found = [_version(row) for row in (await connection.execute(query)).mappings()]
        keys = [str(version.name.number) for version in found[: page.size]]
        return Page(found[: page.size], keys[-1] if len(found) > page.size else "", keys)

    async def add_blob(self, blob: Blob, now: datetime) -> None:
        """Note that a blob is whole."""
        values = {
            "project": blob.parent.project,
            "sha256": blob.sha256,
            "size_bytes": blob.size_bytes,
            "create_time": now,
        }
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        async with _transaction(self._engine) as connection:
            await connection.execute(dialect.insert(schema.blobs).values(values).on_conflict_do_nothing())

    async def find_blobs(self, parent: ProjectName, digests: Sequence[str]) -> Mapping[str, Blob]:
        """Those of the blobs that the project has, by digest."""
        table = schema.blobs
        query = select(table).where(table.c.project == parent.project, table.c.sha256.in_(digests))
        async with _transaction(self._reader) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return {row["sha256"]: Blob(parent, row["sha256"], row["size_bytes"]) for row in rows}

    async def _find(
        self, query: Select[Any], table: Table, names: Collection[ModelName] | Collection[VersionName]
    ) -> Sequence[RowMapping]:
        """The rows of a table whose key is one of the names."""
        # One parameter however many they are, so that the statement is compiled once. SQLite finds rows by their key in
        # this way, and reads the whole table for `(project, model) IN (…)`.
        each = func.json_array_elements if self._engine.dialect.name == "postgresql" else func.json_each
        listed = each(literal([astuple(name) for name in names], JSON)).table_valued(column("value", JSON))
        for place, own in enumerate(table.primary_key.columns):
            part = listed.c.value[place]
            query = query.where(own == (part.as_integer() if isinstance(own.type, Integer) else part.as_string()))
        async with _transaction(self._reader) as connection:
            rows: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
        return rows


def _transaction(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
    return transaction(engine, StorageUnavailableError)


def _where(query: Select[Any], table: Table, name: ModelName | VersionName) -> Select[Any]:
    return query.where(table.c.project == name.project, table.c.model == name.model)


async def _read_model(connection: AsyncConnection, name: ModelName, *, lock: bool = False) -> Model:
    query = _where(select(schema.models), schema.models, name)
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    if row is None:
        raise ModelNotFoundError(name)
    return _model(row)


async def _read_version(connection: AsyncConnection, name: VersionName) -> Version:
    query = _where(select(schema.versions), schema.versions, name).where(schema.versions.c.number == name.number)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise VersionNotFoundError(name)
    return _version(row)


async def _write_model(connection: AsyncConnection, model: Model) -> None:
    table = schema.models
    mine = (table.c.project == model.name.project) & (table.c.model == model.name.model)
    await connection.execute(update(table).where(mine).values(_model_values(model)))


async def _earlier(connection: AsyncConnection, parent: ProjectName, kind: str, request: Request) -> RowMapping | None:
    table = schema.requests
    query = select(table).where(
        table.c.project == parent.project, table.c.kind == kind, table.c.request_id == request.id
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is not None and row["fingerprint"] != request.fingerprint:
        raise RequestIdReusedError(request.id)
    return row


async def _remember(
    connection: AsyncConnection, name: ModelName, kind: str, request: Request, *, number: int, now: datetime
) -> None:
    values = {
        "project": name.project,
        "kind": kind,
        "request_id": request.id,
        "fingerprint": request.fingerprint,
        "model": name.model,
        "number": number,
        "create_time": now,
    }
    await connection.execute(insert(schema.requests).values(values))


def _version_name(parent: ModelName, row: RowMapping) -> VersionName:
    return VersionName(parent.project, row["model"], row["number"])


def _model_values(model: Model) -> dict[str, Any]:
    return {
        "project": model.name.project,
        "model": model.name.model,
        "task": model.content.task.value,
        "display_name": model.content.display_name,
        "description": model.content.description,
        "labels": dict(model.content.labels),
        "aliases": dict(model.aliases),
        "latest": model.latest,
        "revision": model.revision,
        "create_time": model.create_time,
        "update_time": model.update_time,
    }


def _model(row: RowMapping) -> Model:
    content = ModelContent(Task(row["task"]), row["display_name"], row["description"], row["labels"])
    return Model(
        name=ModelName(row["project"], row["model"]),
        content=content,
        create_time=row["create_time"],
        update_time=row["update_time"],
        aliases=row["aliases"],
        latest=row["latest"],
        revision=row["revision"],
    )


def _version_values(version: Version) -> dict[str, Any]:
    return {
        "project": version.name.project,
        "model": version.name.model,
        "number": version.name.number,
        "state": version.state.value,
        "task": version.task.value,
        "content": to_document(version.content),
        "create_time": version.create_time,
    }


def _version(row: RowMapping) -> Version:
    return Version(
        name=VersionName(row["project"], row["model"], row["number"]),
        state=State(row["state"]),
        task=Task(row["task"]),
        content=from_document(row["content"]),
        create_time=row["create_time"],
    )
