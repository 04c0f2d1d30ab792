"""Versions beside the main one, and the other things that a user decides."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("options", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("deployments", sa.Column("companions", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("deployments", sa.Column("comparison", sa.JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("deployments", "comparison")
    op.drop_column("deployments", "companions")
    op.drop_column("deployments", "options")
