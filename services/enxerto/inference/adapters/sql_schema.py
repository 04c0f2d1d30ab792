"""Tables of the inference service. A change here needs a migration; a test compares the two."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

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

# What a front needs to know of the versions that serve, for when the registry does not tell it.
served_versions = Table(
    "served_versions",
    metadata,
    Column("project", Id),
    Column("deployment", Id),
    Column("version", Text),
    Column("facts", JSON, nullable=False),
    PrimaryKeyConstraint("project", "deployment", "version", name="served_versions_pkey"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("project", Id),
    Column("deployment", Id),
    # Of the answer, and of the image in it.
    Column("identity", String(16)),
    Column("item", Integer),
    Column("version", Text, nullable=False),
    Column("predicted_label", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("known", Boolean, nullable=False),
    Column("correct", Boolean, nullable=False),
    Column("answer_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "deployment", "identity", "item", name="feedback_pkey"),
    Index("feedback_by_time", "project", "deployment", "answer_time"),
)

sampling_policies = Table(
    "sampling_policies",
    metadata,
    Column("project", Id),
    Column("deployment", Id),
    Column("max_samples", Integer, nullable=False),
    Column("max_bytes", BigInteger, nullable=False),
    Column("uncertain_below", Float, nullable=False),
    Column("drifted_beyond", Float, nullable=False),
    Column("update_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "deployment", name="sampling_policies_pkey"),
)

samples = Table(
    "samples",
    metadata,
    Column("project", Id),
    Column("deployment", Id),
    Column("sample", Id),
    Column("reason", String(32), nullable=False),
    Column("version", Text, nullable=False),
    Column("predicted_label", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("distance", Float, nullable=True),
    Column("identity", String(16), nullable=False),
    Column("item", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("project", "deployment", "sample", name="samples_pkey"),
)
