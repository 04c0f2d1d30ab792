"""The training contract: convert, call, convert."""

from enxerto.training.servicer.datasets import DatasetServicer
from enxerto.training.servicer.runs import TrainingServicer

__all__ = ["DatasetServicer", "TrainingServicer"]
