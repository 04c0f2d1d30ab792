"""Deployments in SQLite or PostgreSQL."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, RowMapping, and_, delete, insert, null, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.inference.adapters.deployment_codec import (
    comparison_from_json,
    comparison_to_json,
    facts_from_json,
    facts_to_json,
    fault_from_json,
    fault_to_json,
    options_from_json,
    options_to_json,
    rollout_from_json,
    rollout_to_json,
)
from enxerto.inference.adapters.sql_schema import deployments as table
from enxerto.inference.adapters.sql_schema import served_versions
from enxerto.inference.domain import Deployment, DeploymentSpec, Rollout, ServableVersion, State
from enxerto.inference.errors import (
    DeploymentChangedError,
    DeploymentExistsError,
    DeploymentNotFoundError,
    RequestIdReusedError,
    StorageUnavailableError,
)
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest
from enxerto.runtime.sql import opened_engine, reader, transaction

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def open_deployment_store(url: str) -> AsyncIterator["SqlDeploymentStore"]:
    """Migrate the database and open it.

    Raises:
        StartupError: the URL is bad or the database cannot be reached.
    """
    async with opened_engine(url, MIGRATIONS, "the inference service") as engine:
        yield SqlDeploymentStore(engine)


class SqlDeploymentStore:
    """A `DeploymentStore` on SQL; the schema must be there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = reader(engine)

    @property
    def engine(self) -> AsyncEngine:
        """For the service's other stores, which share the database."""
        return self._engine

    async def create(self, deployment: Deployment, request_id: str) -> Deployment:
        """Keep a new deployment; see `DeploymentStore.create`."""
        name, digest = deployment.name, _digest(deployment)
        row = {
            "project": name.project,
            "deployment": name.deployment,
            "request_id": request_id or None,
            "request_digest": digest,
            "create_time": deployment.create_time,
            "revision": deployment.revision,
            **_changing(deployment),
        }
        try:
            async with transaction(self._engine, StorageUnavailableError) as connection:
                # First the name: who took it with this request in between is found by the request.
                taken = (await connection.execute(select(table.c.revision).where(_is(name)))).first() is not None
                if request_id:
                    same = and_(table.c.project == name.project, table.c.request_id == request_id)
                    earlier = (await connection.execute(select(table).where(same))).mappings().one_or_none()
                    if earlier is not None:
                        if earlier["request_digest"] != digest:
                            raise RequestIdReusedError(name)
                        return _deployment(earlier)
                if taken:
                    raise DeploymentExistsError(name)
                await connection.execute(insert(table).values(row))
        except IntegrityError:
            # Someone else was first; the second look decides between "the same request" and "already there".
            return await self.create(deployment, request_id)
        return deployment

    async def get(self, name: DeploymentName) -> Deployment:
        """Read one; see `DeploymentStore.get`."""
        async with transaction(self._reader, StorageUnavailableError) as connection:
            row = (await connection.execute(select(table).where(_is(name)))).mappings().one_or_none()
        if row is None:
            raise DeploymentNotFoundError(name)
        return _deployment(row)

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """Deployments of a project; see `DeploymentStore.list`."""
        mine = and_(table.c.project == parent.project, table.c.deployment > page.after)
        query = select(table).where(mine).order_by(table.c.deployment).limit(page.size + 1)
        async with transaction(self._reader, StorageUnavailableError) as connection:
            rows = (await connection.execute(query)).mappings().all()
        items = [_deployment(row) for row in rows[: page.size]]
        return Page(items, items[-1].name.deployment if len(rows) > page.size else "")

    async def all(self) -> Sequence[Deployment]:
        """Every deployment."""
        async with transaction(self._reader, StorageUnavailableError) as connection:
            rows = (await connection.execute(select(table).order_by(table.c.project, table.c.deployment))).mappings()
            return [_deployment(row) for row in rows]

    async def replace(self, deployment: Deployment) -> Deployment:
        """Write over the same revision; see `DeploymentStore.replace`."""
        revision = deployment.revision + 1
        same = and_(_is(deployment.name), table.c.revision == deployment.revision)
        statement = update(table).where(same).values(**_changing(deployment), revision=revision)
        async with transaction(self._engine, StorageUnavailableError) as connection:
            if not await _affected(connection, statement):
                found = await connection.execute(select(table.c.revision).where(_is(deployment.name)))
                if found.first() is None:
                    raise DeploymentNotFoundError(deployment.name)
                raise DeploymentChangedError(deployment.name)
        return dataclasses.replace(deployment, revision=revision)

    async def remove(self, name: DeploymentName) -> None:
        """Forget one."""
        async with transaction(self._engine, StorageUnavailableError) as connection:
            await connection.execute(delete(served_versions).where(_served_by(name)))
            await connection.execute(delete(table).where(_is(name)))

    async def keep_facts(self, name: DeploymentName, versions: Collection[ServableVersion]) -> None:
        """Keep the facts of these versions; see `DeploymentStore.keep_facts`."""
        wanted = {str(version.name): facts_to_json(version) for version in versions}
        query = select(served_versions.c.version, served_versions.c.facts).where(_served_by(name))
        async with transaction(self._reader, StorageUnavailableError) as connection:
            rows = (await connection.execute(query)).all()
        if {row.version: row.facts for row in rows} == wanted:
            return
        key = {"project": name.project, "deployment": name.deployment}
        added = [{**key, "version": version, "facts": facts} for version, facts in wanted.items()]
        # Another process that does the same at this moment keeps the same.
        with contextlib.suppress(IntegrityError):
            async with transaction(self._engine, StorageUnavailableError) as connection:
                await connection.execute(delete(served_versions).where(_served_by(name)))
                if added:
                    await connection.execute(insert(served_versions), added)

    async def facts(self, name: DeploymentName, version: VersionName) -> ServableVersion | None:
        """What was kept of a version."""
        this = and_(_served_by(name), served_versions.c.version == str(version))
        async with transaction(self._reader, StorageUnavailableError) as connection:
            facts = (await connection.execute(select(served_versions.c.facts).where(this))).scalar_one_or_none()
        return None if facts is None else facts_from_json(facts)


async def _affected(connection: AsyncConnection, statement: Executable) -> bool:
    result = await connection.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount > 0


def _is(name: DeploymentName) -> Any:
    return and_(table.c.project == name.project, table.c.deployment == name.deployment)


def _served_by(name: DeploymentName) -> Any:
    return and_(served_versions.c.project == name.project, served_versions.c.deployment == name.deployment)


def _digest(deployment: Deployment) -> str:
    spec = deployment.spec
    said: list[Any] = [str(deployment.name), str(spec.model_version), spec.replicas, sorted(spec.labels.items())]
    if options := options_to_json(spec):
        said.append(options)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _changing(deployment: Deployment) -> dict[str, Any]:
    spec, main = deployment.spec, deployment.main
    return {
        "model_version": str(spec.model_version),
        "replicas": spec.replicas,
        "labels": dict(spec.labels),
        "options": options_to_json(spec),
        "state": deployment.state.value,
        "serving": str(main.serving or ""),
        "target": str(main.target or ""),
        "fault": fault_to_json(main.fault) or null(),
        "companions": [rollout_to_json(rollout) for rollout in deployment.companions],
        "comparison": comparison_to_json(deployment.comparison) or null(),
        "generation": deployment.generation,
        "update_time": deployment.update_time,
    }


def _deployment(row: RowMapping) -> Deployment:
    reference = VersionReference.parse(row["model_version"])
    return Deployment(
        name=DeploymentName(row["project"], row["deployment"]),
        spec=DeploymentSpec(reference, row["replicas"], row["labels"], **options_from_json(row["options"])),
        state=State(row["state"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        main=Rollout(
            reference,
            VersionName.try_parse(row["serving"]),
            VersionName.try_parse(row["target"]),
            fault_from_json(row["fault"]),
        ),
        companions=tuple(map(rollout_from_json, row["companions"])),
        comparison=comparison_from_json(row["comparison"]),
        generation=row["generation"],
        revision=row["revision"],
    )
