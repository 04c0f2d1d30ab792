"""How databases are opened, and what their failures are to those who call."""

import asyncio
import struct
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.errors import StartupError
from enxerto.runtime.sql import create_engine, opened_engine, transaction

SSL_REQUEST = struct.pack(">II", 8, 80877103)
FULL = 2


async def test_a_commit_to_sqlite_is_on_the_disk_before_it_returns(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite+aiosqlite:///{tmp_path}/one.db")
    async with engine.begin() as connection:
        read = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in ("journal_mode", "synchronous")
        ]
    await engine.dispose()
    assert read == ["wal", FULL]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://user:secret-word@127.0.0.1/db", "must begin with sqlite.aiosqlite:// or postgresql.asyncpg://"),
        ("postgres://user:secret-word@127.0.0.1/db", "must begin with"),
        ("sqlite:////tmp/one.db", "must begin with"),
        ("postgresql+asyncpg://user:secret-word@host:port/db", "port of the URL"),
        ("secret-word", "parse"),
    ],
)
async def test_a_url_that_cannot_be_used_is_said_in_one_line_without_its_password(
    tmp_path: Path, url: str, words: str
) -> None:
    with pytest.raises(StartupError, match=f"cannot open the registry's database: .*{words}") as caught:
        async with opened_engine(url, tmp_path, "the registry"):
            pass
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "encrypted"), [("?sslmode=require", True), ("?ssl=require", True), ("?sslmode=disable", False)]
)
async def test_a_url_says_whether_the_connection_is_encrypted(asked: str, encrypted: bool) -> None:
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.readexactly(8))
        # No TLS here, https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
        writer.write(b"N")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = create_engine(f"postgresql+asyncpg://someone@127.0.0.1:{port}/somewhere{asked}")
        with pytest.raises(UnavailableError):
            async with transaction(engine):
                pass
    assert (await first == SSL_REQUEST) is encrypted


async def test_a_parameter_that_the_driver_does_not_have_is_said(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(
        "from alembic import context\nfrom enxerto.runtime.sql import run_migrations\nrun_migrations(context.config)"
    )
    with pytest.raises(StartupError, match=r"cannot open the registry's database: .*'frobnicate'"):
        async with opened_engine("postgresql+asyncpg://someone@127.0.0.1:1/db?frobnicate=1", tmp_path, "the registry"):
            pass


async def test_a_database_that_is_away_or_has_no_connection_left_is_unavailable(tmp_path: Path) -> None:
    nobody = create_engine("postgresql+asyncpg://someone@127.0.0.1:1/somewhere")
    with pytest.raises(UnavailableError):
        async with transaction(nobody):
            pass
    busy = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/one.db", pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with busy.connect():
        with pytest.raises(UnavailableError):
            async with transaction(busy):
                pass
    await busy.dispose()


async def test_a_row_that_is_there_already_is_the_callers_to_deal_with(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite+aiosqlite:///{tmp_path}/one.db")
    async with transaction(engine) as connection:
        await connection.execute(text("CREATE TABLE one (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO one VALUES (1)"))
    with pytest.raises(IntegrityError):
        async with transaction(engine) as connection:
            await connection.execute(text("INSERT INTO one VALUES (1)"))
    await engine.dispose()
