"""Tables of the registry. A change here needs a migration; a test compares the two."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from enxerto.runtime.sql import UtcDateTime

metadata = MetaData()

# Ids are compared by byte everywhere, so that pages come in one order on every database.
Id = String(63).with_variant(String(63, collation="C"), "postgresql")

# Aliases are one column of the model, so that a move is one row's update.
models = Table(
    "models",
    metadata,
    Column("project", Id),
    Column("model", Id),
    Column("task", String(64), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("aliases", JSON, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "model", name="models_pkey"),
)

versions = Table(
    "versions",
    metadata,
    Column("project", Id),
    Column("model", Id),
    Column("number", Integer),
    Column("state", String(32), nullable=False),
    Column("task", String(64), nullable=False),
    Column("content", JSON, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "model", "number", name="versions_pkey"),
    ForeignKeyConstraint(["project", "model"], ["models.project", "models.model"], name="versions_model_fkey"),
)

# A blob is visible to the projects that uploaded it: knowing a digest is not a right to read.
blobs = Table(
    "blobs",
    metadata,
    Column("project", Id),
    Column("sha256", String(64)),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "sha256", name="blobs_pkey"),
)

requests = Table(
    "requests",
    metadata,
    Column("project", Id),
    Column("kind", String(16)),
    Column("request_id", String(128)),
    Column("fingerprint", String(64), nullable=False),
    Column("model", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "kind", "request_id", name="requests_pkey"),
)
