"""What every SQL store shares: the engine, its transactions, and migrations at start."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from alembic import command, context
from alembic.config import Config
from sqlalchemy import URL, Connection, DateTime, Dialect, TypeDecorator, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.errors import StartupError

# Alembic keeps the migration that runs in globals of its own.
_ALEMBIC = threading.Lock()
_DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")
READ_ONLY = "enxerto_read_only"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse what has no zone; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored moment needs a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def create_engine(url: str) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`, which may say `?sslmode=…` as libpq's URLs do.

    SQLite runs in WAL mode with foreign keys on, and waits for a lock instead of failing. Every transaction there takes
    the write lock at once, except on `reader(engine)`.

    Raises:
        ArgumentError: it is another URL; the message does not repeat it.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        # asyncpg reads libpq's words from a URL of its own, and takes none of them as an argument.
        tls = {name: value for name, value in parsed.query.items() if name.startswith("ssl") and name != "ssl"}
        arguments = {"dsn": f"postgresql:///?{urlencode(tls, doseq=True)}"} if tls else {}
        return create_async_engine(parsed.difference_update_query(tls), pool_pre_ping=True, connect_args=arguments)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed)
    event.listen(engine.sync_engine, "connect", _tune_sqlite)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ValueError as error:
        raise ArgumentError("the port of the URL must be a number") from error
    if parsed.drivername not in _DRIVERS:
        raise ArgumentError(f"the URL must begin with {' or '.join(f'{driver}://' for driver in _DRIVERS)}")
    return parsed


@asynccontextmanager
async def opened_engine(url: str, migrations: Path, whose: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a migrated database, disposed of at the end.

    Args:
        url: the database.
        migrations: folder with Alembic's `env.py` and `versions/`.
        whose: named in the error, such as `the registry`.

    Raises:
        StartupError: the URL is bad or the database cannot be reached.
    """
    try:
        engine = create_engine(url)
        await migrate(url, migrations)
    except (ArgumentError, OSError, DBAPIError, TypeError) as error:
        # The URL may hold a password, so only the driver's own words are passed on; a TypeError are those about what
        # the URL asks of it behind its question mark.
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StartupError(f"cannot open {whose}'s database: {cause}") from error
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def transaction(
    engine: AsyncEngine, unavailable: Callable[[str], UnavailableError] = UnavailableError
) -> AsyncIterator[AsyncConnection]:
    """One transaction.

    Raises:
        UnavailableError: made by `unavailable`; the database cannot do its part at the moment.
        IntegrityError: a row is there already.
    """
    try:
        async with engine.begin() as connection:
            yield connection
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        raise unavailable("the database cannot be used at the moment") from error


def reader(engine: AsyncEngine) -> AsyncEngine:
    """The same engine for transactions that only read, which then never wait for a writer."""
    return engine.execution_options(**{READ_ONLY: True})


def _tune_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN is deferred, so two writers that have both read would fail instead of waiting.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: with less, WAL forgets the last transactions in a power failure, of which callers have been told.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # WAL lets readers go on beside the one writer, as long as they do not ask for the write lock.
    reads = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


async def migrate(url: str, migrations: Path) -> None:
    """Bring the database to the newest schema; several processes may call it at once on PostgreSQL.

    Args:
        url: the database.
        migrations: folder with Alembic's `env.py` and `versions/`.
    """
    await asyncio.to_thread(_upgrade, url, migrations)


def _upgrade(url: str, migrations: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    with _ALEMBIC:
        command.upgrade(config, "head")


def run_migrations(config: Config) -> None:
    """The body of every service's Alembic `env.py`."""

    async def upgrade(url: str) -> None:
        engine = create_engine(url)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_run)
        finally:
            await engine.dispose()

    def _run(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            # One migrator at a time, whoever starts first.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7165014327)")
        context.configure(connection=connection, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()

    asyncio.run(upgrade(config.attributes["url"]))
