"""The training contract: convert, call, convert."""

from enxerto.training.servicer.datasets import DatasetServicer
from enxerto.training.servicer.runs import TrainingServicer
from enxerto.training.servicer.sweeps import SweepServicer

__all__ = ["DatasetServicer", "SweepServicer", "TrainingServicer"]
