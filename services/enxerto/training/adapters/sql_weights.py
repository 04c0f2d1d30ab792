"""Which weights of base models were imported by hand, in SQL. The bytes are in the registry and the blob store."""

from collections.abc import Mapping

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from enxerto.runtime.sql import reader, transaction
from enxerto.training.adapters.tables import base_model_weights
from enxerto.training.ports import ImportedWeights


class SqlWeightsCatalogue:
    """A `WeightsCatalogue` on SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, weights: ImportedWeights) -> None:
        """Note a base model's weights; those noted before are forgotten."""
        table = base_model_weights
        async with transaction(self._engine) as connection:
            await connection.execute(delete(table).where(table.c.base_model == weights.base_model))
            await connection.execute(
                insert(table).values(
                    base_model=weights.base_model,
                    sha256=weights.sha256,
                    size_bytes=weights.size_bytes,
                    import_time=weights.import_time,
                )
            )

    async def all(self) -> Mapping[str, ImportedWeights]:
        """Every base model's weights, by its name in the catalogue."""
        async with transaction(reader(self._engine)) as connection:
            rows = await connection.execute(select(base_model_weights))
            return {
                row.base_model: ImportedWeights(row.base_model, row.sha256, row.size_bytes, row.import_time)
                for row in rows
            }
