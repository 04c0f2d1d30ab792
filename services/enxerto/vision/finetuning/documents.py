"""A spec from JSON values."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final, TypeVar

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
from enxerto.vision.specs import Task

_T = TypeVar("_T")

_KINDS: Final[dict[str, Any]] = {
    "style": StyleSpec,
    "task": Task,
    "weights": Weights,
    "strategy": Strategy,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "batch_norm": BatchNorm,
    "sampling": Sampling,
    "precision": Precision,
    "class_weights": ClassWeights,
    "policy": AugmentPolicy,
    "mode": QuantizationMode,
    "head": HeadSpec,
    "unfreezing": UnfreezingSpec,
    "loss": LossSpec,
    "augmentation": AugmentationSpec,
    "stop": StopSpec,
    "quantization": QuantizationSpec,
    "checkpoints": CheckpointSpec,
}


def read(kind: type[_T], value: Mapping[str, Any]) -> _T:
    """A dataclass from exactly its fields; raises ValueError, TypeError."""
    known = {one.name for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(value) != known:
        raise ValueError(f"{kind.__name__} needs exactly the fields {sorted(known)}, got {sorted(value)}")
    fields = {}
    for name, item in value.items():
        made = _KINDS.get(name)
        if made is None:
            fields[name] = item
        elif isinstance(made, type) and issubclass(made, enum.Enum):
            fields[name] = made(item)
        else:
            fields[name] = read(made, item)
    return kind(**fields)
