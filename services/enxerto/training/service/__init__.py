"""Use cases of the training service, and the loops that drive its long work."""

from enxerto.training.service.base_models import BaseModels
from enxerto.training.service.datasets import Datasets
from enxerto.training.service.housekeeping import Housekeeping
from enxerto.training.service.imports import Imports
from enxerto.training.service.inquiries import Inquiries
from enxerto.training.service.questions import Questions
from enxerto.training.service.queue import Queue
from enxerto.training.service.reconciler import Reconciler
from enxerto.training.service.runs import Runs
from enxerto.training.service.signals import Signals
from enxerto.training.service.sweep_driver import SweepDriver
from enxerto.training.service.sweeps import Sweeps
from enxerto.training.service.weights import WeightsImports, WeightsSupply

__all__ = [
    "BaseModels",
    "Datasets",
    "Housekeeping",
    "Imports",
    "Inquiries",
    "Questions",
    "Queue",
    "Reconciler",
    "Runs",
    "Signals",
    "SweepDriver",
    "Sweeps",
    "WeightsImports",
    "WeightsSupply",
]
