"""The migrations make the tables that the code uses."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from enxerto.inference.adapters.sql_schema import metadata
from enxerto.inference.adapters.sql_store import MIGRATIONS
from enxerto.runtime.sql import create_engine, migrate


async def test_migrations_and_schema_agree(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/inference.db"
    await migrate(url, MIGRATIONS)
    engine = create_engine(url)
    async with engine.begin() as connection:
        differences = await connection.run_sync(lambda raw: compare_metadata(MigrationContext.configure(raw), metadata))
    await engine.dispose()
    assert differences == []
