"""Use cases of the training service, and the loops that drive its long work."""

from enxerto.training.service.base_models import BaseModels
from enxerto.training.service.datasets import Datasets
from enxerto.training.service.imports import Imports
from enxerto.training.service.reconciler import Reconciler
from enxerto.training.service.runs import Runs
from enxerto.training.service.signals import Signals

__all__ = ["BaseModels", "Datasets", "Imports", "Reconciler", "Runs", "Signals"]
