"""What is known of the versions that serve."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "served_versions",
        sa.Column("project", _ID, nullable=False),
        sa.Column("deployment", _ID, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("project", "deployment", "version", name="served_versions_pkey"),
    )
