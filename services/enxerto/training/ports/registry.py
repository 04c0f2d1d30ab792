"""Where trained models go."""

from dataclasses import dataclass
from typing import Protocol

from enxerto.training.domain import TrainingResult, TrainingRun


@dataclass(frozen=True, slots=True)
class Registered:
    """A version in the registry."""

    version: str
    """Full name."""
    quarantined: bool


class Registry(Protocol):
    """The model registry."""

    async def register(self, run: TrainingRun, result: TrainingResult) -> Registered:
        """Upload the artefacts and create the version; repeating it creates nothing twice.

        Raises:
            UnavailableError: the registry cannot be reached now.
            RegistryRefusedError: it would refuse again.
        """
        ...
