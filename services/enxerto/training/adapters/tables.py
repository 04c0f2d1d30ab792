"""The tables of the training service."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    true,
)

metadata = MetaData()

# SQLite numbers rows only in a column that it calls INTEGER.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment; SQLite keeps no zone, so it is always UTC there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """With its zone."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


datasets = Table(
    "datasets",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("dataset", String(63), primary_key=True),
    Column("task", String(40), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("snapshot_count", Integer, nullable=False),
    Column("latest_ready", Integer),
    Column("create_time", UtcDateTime, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("dataset", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(20), nullable=False, index=True),
    Column("source", JSON, nullable=False),
    Column("split_seed", BigInteger, nullable=False),
    Column("error", LargeBinary),
    Column("findings", JSON, nullable=False),
    Column("finding_count", Integer, nullable=False),
    Column("content", JSON(none_as_null=True)),
    Column("statistics", JSON(none_as_null=True)),
    Column("create_time", UtcDateTime, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("run", String(63), nullable=False),
    Column("uid", String(40), nullable=False, unique=True),
    Column("state", String(20), nullable=False, index=True),
    Column("spec", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("error", LargeBinary),
    Column("progress", JSON(none_as_null=True)),
    Column("metrics", JSON, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("stop_reason", String(40), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("announced", Boolean, nullable=False),
    Column("submitted", Boolean, nullable=False),
    Column("use_gpu", Boolean),
    Column("log_seq", Integer, nullable=False),
    # Whether the blob store may still have entries of the job's log.
    Column("log_kept", Boolean, nullable=False, server_default=true()),
    Column("losses", Integer, nullable=False),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("files", JSON, nullable=False),
    Column("sweep", String(63), nullable=False),
    Column("waits_for", String(40), nullable=False),
    Column("last_cursor", BigInteger, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("project", "run"),
    Index("runs_by_project", "project", "row"),
)

run_events = Table(
    "run_events",
    metadata,
    Column("uid", String(40), ForeignKey("runs.uid"), primary_key=True),
    Column("cursor", BigInteger, primary_key=True, autoincrement=False),
    Column("time", UtcDateTime, nullable=False),
    Column("body", JSON, nullable=False),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("row", RowNumber, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("sweep", String(63), nullable=False),
    Column("uid", String(40), nullable=False, unique=True),
    Column("state", String(20), nullable=False, index=True),
    Column("plan", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("trials", JSON, nullable=False),
    Column("error", LargeBinary),
    Column("create_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime),
    Column("update_time", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("project", "sweep"),
    Index("sweeps_by_project", "project", "row"),
)

base_model_weights = Table(
    "base_model_weights",
    metadata,
    Column("base_model", String(200), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("import_time", UtcDateTime, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("scope", String(140), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("resource", Text, nullable=False),
)
