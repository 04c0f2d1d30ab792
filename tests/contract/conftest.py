"""Real servers, one of each for a test process; every test has a database and a key prefix of its own."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from obstore.store import S3Store

from servers import PostgresServer, S3Server, postgres_server, s3_server

S3_BUCKET = "enxerto"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
async def postgres_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server((S3_BUCKET,)) as server:
        yield server


@pytest.fixture
def s3_url() -> str:
    """An empty prefix of the bucket, as a URL."""
    return f"s3://{S3_BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def s3_store(s3: S3Server, s3_url: str) -> S3Store:
    """An obstore client of the same empty prefix."""
    return s3.store(S3_BUCKET, s3_url.removeprefix(f"s3://{S3_BUCKET}/"))
