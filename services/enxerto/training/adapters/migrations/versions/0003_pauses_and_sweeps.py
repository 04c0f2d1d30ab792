"""Pauses, losses, checkpoints and files of runs; sweeps; weights brought in by hand; specs with groups."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_RUNS = sa.table("runs", sa.column("uid", sa.String), sa.column("spec", sa.JSON))
_ADDED = {
    "encoder": "",
    "task": "CLASSIFICATION",
    "image_size": 0,
    "stage_learning_rate_decay": 1.0,
    "schedule": "COSINE",
    "ema_decay": 0.0,
    "precision": "AUTO",
    "gradient_clip_norm": 5.0,
    "accumulation_steps": 1,
    "find_learning_rate": False,
    "batch_norm": "AUTO",
    "sampling": "SHUFFLED",
    "head": {"hidden_units": 0, "dropout": 0.0},
    "loss": {"label_smoothing": 0.0, "class_weights": "NONE", "focal_gamma": 0.0},
    "quantization": {"mode": "NONE", "max_score_loss": 0.01},
    "checkpoints": {"every_epochs": 1, "every_s": 0.0},
    "style": {"content_weight": 1.0, "style_weight": None, "total_variation_weight": None, "steps": 300},
}


def upgrade() -> None:
    op.add_column("runs", sa.Column("announced", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("losses", sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("checkpoint", sa.JSON(none_as_null=True)))
    op.add_column("runs", sa.Column("files", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("runs", sa.Column("sweep", sa.String(63), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("waits_for", sa.String(40), nullable=False, server_default=""))
    op.create_table(
        "sweeps",
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("sweep", sa.String(63), nullable=False),
        sa.Column("uid", sa.String(40), nullable=False, unique=True),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("trials", sa.JSON, nullable=False),
        sa.Column("error", sa.LargeBinary),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("end_time", _MOMENT),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.UniqueConstraint("project", "sweep"),
        sa.Index("sweeps_by_project", "project", "row"),
    )
    op.create_table(
        "base_model_weights",
        sa.Column("base_model", sa.String(200), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("import_time", _MOMENT, nullable=False),
    )
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE runs SET announced = (attempt > 0)"))
    for row in connection.execute(sa.select(_RUNS.c.uid, _RUNS.c.spec)).all():
        spec = {**row.spec, "finetune": _with_groups(row.spec["finetune"])}
        connection.execute(sa.update(_RUNS).where(_RUNS.c.uid == row.uid).values(spec=spec))


def _with_groups(old: dict[str, object]) -> dict[str, object]:
    """A spec from before tasks, with the values that were in force then."""
    if "task" in old:
        return old
    kept = {name: value for name, value in old.items() if name not in _GROUPED}
    policy = "LIGHT" if old["augment"] else "NONE"
    return {
        **_ADDED,
        **kept,
        "unfreezing": {"stages": old["unfreeze_stages"], "epochs_per_stage": 0, "head_warmup_epochs": 0},
        "augmentation": {"policy": policy, "magnitude": 9, "mixup_alpha": 0.0, "cutmix_alpha": 0.0},
        "stop": {
            "early_stopping_patience": old["early_stopping_patience"],
            "max_duration_s": 0.0,
            "target_score": None,
        },
    }


_GROUPED = frozenset({"augment", "unfreeze_stages", "early_stopping_patience"})


def downgrade() -> None:
    for table in ("base_model_weights", "sweeps"):
        op.drop_table(table)
    with op.batch_alter_table("runs") as runs:
        for column in ("announced", "losses", "checkpoint", "files", "sweep", "waits_for"):
            runs.drop_column(column)
