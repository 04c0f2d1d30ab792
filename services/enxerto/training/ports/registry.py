"""Where trained models go."""

from dataclasses import dataclass
from typing import Protocol

from enxerto.kernel.names import ModelName
from enxerto.training.domain import TrainingResult, TrainingRun
from enxerto.vision.specs import Task


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
            ModelTaskMismatchError: the model is there already, for another task.
            RegistryRefusedError: it would refuse again.
        """
        ...

    async def task_of(self, model: ModelName) -> Task | None:
        """What a model is for; None when there is no such model. Raises UnavailableError."""
        ...
