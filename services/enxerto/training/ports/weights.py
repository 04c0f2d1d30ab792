"""What keeps imported weights of base models."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """Weights of a base model that were brought in by hand."""

    base_model: str
    """Name in the catalogue."""
    sha256: str
    size_bytes: int
    import_time: datetime


class WeightsCatalogue(Protocol):
    """Keeps which weights were imported."""

    async def put(self, weights: ImportedWeights) -> None:
        """Note a base model's weights; those noted before are forgotten."""
        ...

    async def all(self) -> Mapping[str, ImportedWeights]:
        """Every base model's weights, by its name in the catalogue."""
        ...


class WeightsVault(Protocol):
    """Keeps the bytes of imported weights where jobs can read them, and a copy in the registry."""

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, bytes]:
        """Store bytes until they are published; they count only once `chunks` has ended.

        Returns the sha256 and the first bytes.

        The first bytes are as many as the header of a safetensors file takes, at most some megabytes.
        """
        ...

    async def publish(self, sha256: str, size_bytes: int) -> None:
        """Give received bytes to jobs, and to the registry, from where other clusters have them.

        Raises:
            UnavailableError: the registry or the blob store cannot be reached.
        """
        ...

    async def fetch(self, weights: ImportedWeights) -> None:
        """Copy from the registry for jobs, when it is not there already; raises UnavailableError, DataLossError."""
        ...
