"""Databases of earlier versions are read after the migration."""

import asyncio
import json
import sqlite3

from alembic import command
from alembic.config import Config

from enxerto.kernel.names import RunName
from enxerto.runtime.sql import create_engine, migrate
from enxerto.training.adapters.sql_runs import SqlRunStore
from enxerto.training.bootstrap import MIGRATIONS
from enxerto.training.domain import RunState
from enxerto.vision.finetuning import AugmentPolicy
from enxerto.vision.specs import Task

SPEC = {
    "snapshot": "projects/default/datasets/digits/snapshots/1",
    "base_model": "baseModels/efficientnet-lite0",
    "model": "projects/default/models/digits",
    "num_workers": 1,
    "finetune": {
        "base_model": "efficientnet_lite0",
        "weights": "PRETRAINED",
        "strategy": "FINE_TUNE",
        "epochs": 10,
        "batch_size": 32,
        "learning_rate": 0.001,
        "backbone_learning_rate_ratio": 0.1,
        "weight_decay": 0.01,
        "optimizer": "ADAMW",
        "warmup_fraction": 0.1,
        "unfreeze_stages": 3,
        "early_stopping_patience": 4,
        "augment": True,
        "seed": 5,
    },
}


async def test_a_run_from_before_the_tasks_is_read_with_the_values_that_were_in_force(tmp_path):
    path = tmp_path / "training.db"
    url = f"sqlite+aiosqlite:///{path}"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url

    def old() -> None:
        command.upgrade(config, "0001")
        with sqlite3.connect(path) as database:
            database.execute(
                "INSERT INTO runs (project, run, uid, state, spec, labels, metrics, model_version, stop_reason,"
                " attempt, submitted, log_seq, last_cursor, create_time, update_time, revision)"
                " VALUES ('default', 'old', 'u1', 'RUNNING', ?, '{}', '[]', '', '', 1, 1, 3, 4,"
                " '2026-01-01', '2026-01-01', 5)",
                [json.dumps(SPEC)],
            )

    await asyncio.to_thread(old)
    await migrate(url, MIGRATIONS)
    engine = create_engine(url)
    run = await SqlRunStore(engine).get(RunName("default", "old"))
    await engine.dispose()
    assert (run.state, run.announced, run.submitted, run.losses) == (RunState.RUNNING, True, True, 0)
    assert run.use_gpu is None
    tune = run.spec.finetune
    assert (tune.task, tune.unfreezing.stages, tune.stop.early_stopping_patience) == (Task.CLASSIFICATION, 3, 4)
    assert (tune.augmentation.policy, tune.epochs) == (AugmentPolicy.LIGHT, 10)
