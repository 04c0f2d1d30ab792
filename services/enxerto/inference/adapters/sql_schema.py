"""Tables of the inference service. A change here needs a migration; a test compares the two."""

from sqlalchemy import JSON, Column, Integer, MetaData, PrimaryKeyConstraint, String, Table, Text, UniqueConstraint

from enxerto.runtime.sql import UtcDateTime

metadata = MetaData()

# Ids are compared by byte everywhere, so that pages come in one order on every database.
Id = String(63).with_variant(String(63, collation="C"), "postgresql")

deployments = Table(
    "deployments",
    metadata,
    Column("project", Id),
    Column("deployment", Id),
    Column("model_version", Text, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
    # The rest of what the user decides; a key that is missing has its default.
    Column("options", JSON, nullable=False),
    Column("state", String(32), nullable=False),
    Column("serving", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("fault", JSON, nullable=True),
    # What has become of the versions beside the main one.
    Column("companions", JSON, nullable=False),
    Column("comparison", JSON, nullable=True),
    Column("generation", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    # The request that created it, and a digest of what it said.
    Column("request_id", String(128), nullable=True),
    Column("request_digest", String(64), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "deployment", name="deployments_pkey"),
    UniqueConstraint("project", "request_id", name="deployments_request_key"),
)
