"""Feedback, sampling policies and samples."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("project", _ID, nullable=False),
        sa.Column("deployment", _ID, nullable=False),
        sa.Column("identity", sa.String(16), nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("predicted_label", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        sa.Column("answer_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", "identity", "item", name="feedback_pkey"),
    )
    op.create_index("feedback_by_time", "feedback", ["project", "deployment", "answer_time"])
    op.create_table(
        "sampling_policies",
        sa.Column("project", _ID, nullable=False),
        sa.Column("deployment", _ID, nullable=False),
        sa.Column("max_samples", sa.Integer, nullable=False),
        sa.Column("max_bytes", sa.BigInteger, nullable=False),
        sa.Column("uncertain_below", sa.Float, nullable=False),
        sa.Column("drifted_beyond", sa.Float, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", name="sampling_policies_pkey"),
    )
    op.create_table(
        "samples",
        sa.Column("project", _ID, nullable=False),
        sa.Column("deployment", _ID, nullable=False),
        sa.Column("sample", _ID, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("predicted_label", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("distance", sa.Float, nullable=True),
        sa.Column("identity", sa.String(16), nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", "sample", name="samples_pkey"),
    )


def downgrade() -> None:
    op.drop_table("samples")
    op.drop_table("sampling_policies")
    op.drop_index("feedback_by_time", "feedback")
    op.drop_table("feedback")
