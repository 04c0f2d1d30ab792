"""Whether the workers of a run's attempt have GPUs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("use_gpu", sa.Boolean))


def downgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("use_gpu")
