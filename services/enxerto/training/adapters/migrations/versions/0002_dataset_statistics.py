"""What a snapshot's images look like."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("snapshots", sa.Column("statistics", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    with op.batch_alter_table("snapshots") as table:
        table.drop_column("statistics")
