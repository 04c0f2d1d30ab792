"""Deployments."""

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
        "deployments",
        sa.Column("project", _ID, nullable=False),
        sa.Column("deployment", _ID, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("serving", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("fault", sa.JSON, nullable=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=True),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", name="deployments_pkey"),
        sa.UniqueConstraint("project", "request_id", name="deployments_request_key"),
    )


def downgrade() -> None:
    op.drop_table("deployments")
