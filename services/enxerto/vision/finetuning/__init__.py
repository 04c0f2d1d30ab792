"""What a training run is asked to do besides its data: one complete, checked value. Pure."""

from enxerto.vision.finetuning.choices import (
    AugmentPolicy,
    BatchNorm,
    ClassWeights,
    Optimizer,
    Precision,
    QuantizationMode,
    Sampling,
    Schedule,
    Strategy,
    Weights,
)
from enxerto.vision.finetuning.groups import (
    AugmentationSpec,
    CheckpointSpec,
    HeadSpec,
    LossSpec,
    QuantizationSpec,
    StopSpec,
    StyleSpec,
    UnfreezingSpec,
)
from enxerto.vision.finetuning.spec import FinetuneSpec

__all__ = [
    "AugmentPolicy",
    "AugmentationSpec",
    "BatchNorm",
    "CheckpointSpec",
    "ClassWeights",
    "FinetuneSpec",
    "HeadSpec",
    "LossSpec",
    "Optimizer",
    "Precision",
    "QuantizationMode",
    "QuantizationSpec",
    "Sampling",
    "Schedule",
    "StopSpec",
    "Strategy",
    "StyleSpec",
    "UnfreezingSpec",
    "Weights",
]
