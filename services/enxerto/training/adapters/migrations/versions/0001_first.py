"""Datasets, snapshots, runs and their events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("task", sa.String(40), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("snapshot_count", sa.Integer, nullable=False),
        sa.Column("latest_ready", sa.Integer),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("split_seed", sa.BigInteger, nullable=False),
        sa.Column("error", sa.LargeBinary),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("finding_count", sa.Integer, nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True)),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("run", sa.String(63), nullable=False),
        sa.Column("uid", sa.String(40), nullable=False, unique=True),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("error", sa.LargeBinary),
        sa.Column("progress", sa.JSON(none_as_null=True)),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("stop_reason", sa.String(40), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("submitted", sa.Boolean, nullable=False),
        sa.Column("log_seq", sa.Integer, nullable=False),
        sa.Column("last_cursor", sa.BigInteger, nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("start_time", _MOMENT),
        sa.Column("end_time", _MOMENT),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.UniqueConstraint("project", "run"),
        sa.Index("runs_by_project", "project", "row"),
    )
    op.create_table(
        "run_events",
        sa.Column("uid", sa.String(40), sa.ForeignKey("runs.uid"), primary_key=True),
        sa.Column("cursor", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", _MOMENT, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("scope", sa.String(140), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("requests", "run_events", "runs", "snapshots", "datasets"):
        op.drop_table(table)
