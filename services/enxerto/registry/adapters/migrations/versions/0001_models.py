"""Models, versions, blobs and remembered requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("project", _ID, nullable=False),
        sa.Column("model", _ID, nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("aliases", sa.JSON, nullable=False),
        sa.Column("latest", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "model", name="models_pkey"),
    )
    op.create_table(
        "versions",
        sa.Column("project", _ID, nullable=False),
        sa.Column("model", _ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "model", "number", name="versions_pkey"),
        sa.ForeignKeyConstraint(["project", "model"], ["models.project", "models.model"], name="versions_model_fkey"),
    )
    op.create_table(
        "blobs",
        sa.Column("project", _ID, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "sha256", name="blobs_pkey"),
    )
    op.create_table(
        "requests",
        sa.Column("project", _ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("model", _ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "request_id", name="requests_pkey"),
    )


def downgrade() -> None:
    for table in ("requests", "blobs", "versions", "models"):
        op.drop_table(table)
