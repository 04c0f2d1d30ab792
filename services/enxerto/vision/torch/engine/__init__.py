"""Trains what a task supplies: the one loop of every task, whatever its network, data and loss."""

from enxerto.vision.torch.engine.attempt import Attempt
from enxerto.vision.torch.engine.budget import Budget, StopReason
from enxerto.vision.torch.engine.fitting import Ahead, Fitted, TrainingDivergedError, fit
from enxerto.vision.torch.engine.heads_first import fit_heads_first
from enxerto.vision.torch.engine.state import Before, read_before

__all__ = [
    "Ahead",
    "Attempt",
    "Before",
    "Budget",
    "Fitted",
    "StopReason",
    "TrainingDivergedError",
    "fit",
    "fit_heads_first",
    "read_before",
]
