"""Pretrained weights: found offline first, read without running what they contain, put into a network."""

from enxerto.vision.torch.weights.files import WeightsCorruptError, read_tensors
from enxerto.vision.torch.weights.fitting import fill
from enxerto.vision.torch.weights.sources import (
    LoadedWeights,
    WeightsSources,
    WeightsUnavailableError,
    load_weights,
)

__all__ = [
    "LoadedWeights",
    "WeightsCorruptError",
    "WeightsSources",
    "WeightsUnavailableError",
    "fill",
    "load_weights",
    "read_tensors",
]
