"""The migrations make the schema that the code expects, and may run twice or at once."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from enxerto.registry.adapters.sql_schema import metadata
from enxerto.registry.adapters.sql_store import MIGRATIONS
from enxerto.runtime.sql import create_engine, migrate


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite+aiosqlite:///{tmp_path}/100%/db.sqlite"


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def differences_at(url: str) -> list[object]:
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(differences)
    finally:
        await engine.dispose()


async def test_the_migrated_schema_is_the_codes(url: str) -> None:
    await migrate(url, MIGRATIONS)
    assert await differences_at(url) == []


async def test_migrating_again_or_at_once_is_harmless(url: str) -> None:
    await asyncio.gather(*(migrate(url, MIGRATIONS) for _ in range(4)))
    await migrate(url, MIGRATIONS)
    assert await differences_at(url) == []
