"""How SQLite is opened."""

from pathlib import Path

from sqlalchemy import text

from enxerto.runtime.sql import create_engine

FULL = 2


async def test_a_commit_to_sqlite_is_on_the_disk_before_it_returns(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite+aiosqlite:///{tmp_path}/one.db")
    async with engine.begin() as connection:
        read = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in ("journal_mode", "synchronous")
        ]
    await engine.dispose()
    assert read == ["wal", FULL]
