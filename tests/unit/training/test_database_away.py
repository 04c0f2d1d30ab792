"""While the database is away the training service's stores say so, which its loops wait for and clients repeat."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from enxerto.kernel.errors import UnavailableError
from enxerto.kernel.names import DatasetName, RunName, SweepName
from enxerto.runtime.sql import create_engine
from enxerto.training.adapters.sql_datasets import SqlDatasetStore
from enxerto.training.adapters.sql_runs import SqlRunStore
from enxerto.training.adapters.sql_sweeps import SqlSweepStore
from enxerto.training.adapters.sql_weights import SqlWeightsCatalogue
from fakes.training_values import a_run

CALLS: dict[str, Callable[[AsyncEngine], Awaitable[object]]] = {
    "importing": lambda engine: SqlDatasetStore(engine).list_importing(),
    "dataset": lambda engine: SqlDatasetStore(engine).get_dataset(DatasetName("default", "digits")),
    "active runs": lambda engine: SqlRunStore(engine).list_active(),
    "run": lambda engine: SqlRunStore(engine).get(RunName("default", "one")),
    "create": lambda engine: SqlRunStore(engine).create(a_run()),
    "save": lambda engine: SqlRunStore(engine).save(a_run()),
    "sweep": lambda engine: SqlSweepStore(engine).get(SweepName("default", "one")),
    "weights": lambda engine: SqlWeightsCatalogue(engine).all(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_store_whose_database_is_away_is_unavailable(call: Callable[[AsyncEngine], Awaitable[object]]) -> None:
    with pytest.raises(UnavailableError):
        await call(create_engine("postgresql+asyncpg://someone@127.0.0.1:1/somewhere"))
