"""Value types shared by training, export and serving. Pure: no torch, no pyarrow."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, cast

from enxerto.kernel.errors import Violations

Interpolation = Literal["bilinear", "bicubic"]

_T = TypeVar("_T")

_MAX_SIDE = 4096
_MAX_SEED = 2**63 - 1


class Task(enum.StrEnum):
    """What a network answers."""

    CLASSIFICATION = "CLASSIFICATION"


class Strategy(enum.StrEnum):
    """How much of the pretrained network is trained."""

    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"
    FINE_TUNE = "FINE_TUNE"


class Weights(enum.StrEnum):
    """Where the backbone starts from."""

    PRETRAINED = "PRETRAINED"
    NONE = "NONE"


class Optimizer(enum.StrEnum):
    """Update rule of the head and of the unfrozen stages."""

    ADAMW = "ADAMW"
    SGD = "SGD"


class Split(enum.StrEnum):
    """Part of a dataset: TRAIN fits, VAL selects the epoch, TEST is only reported."""

    TRAIN = "TRAIN"
    VAL = "VAL"
    TEST = "TEST"


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How an encoded image becomes the network's input.

    Resize and crop happen outside the graph; `mean` and `std` are applied inside it.

    Attributes:
        height: rows of the input, pixels.
        width: columns of the input, pixels.
        crop_fraction: the part of the resized shorter side that the centre crop keeps, in (0, 1].
        interpolation: resampling filter, antialiased.
        mean: per channel (RGB), of values in [0, 1].
        std: per channel (RGB), of values in [0, 1], positive.
    """

    height: int
    width: int
    crop_fraction: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not (1 <= self.height <= _MAX_SIDE and 1 <= self.width <= _MAX_SIDE):
            problems.append(f"height and width must be in 1..{_MAX_SIDE}")
        if not 0 < self.crop_fraction <= 1:
            problems.append("crop_fraction must be in (0, 1]")
        if self.interpolation not in ("bilinear", "bicubic"):
            problems.append("interpolation must be bilinear or bicubic")
        if len(self.mean) != 3 or not all(math.isfinite(value) for value in self.mean):
            problems.append("mean must be three finite numbers")
        if len(self.std) != 3 or not all(math.isfinite(value) and value > 0 for value in self.std):
            problems.append("std must be three positive finite numbers")
        if problems:
            raise ValueError("; ".join(problems))

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return {
            "height": self.height,
            "width": self.width,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PreprocessSpec:
        """The reverse of `to_json`.

        Raises:
            ValueError: a field is missing, unknown, or out of range.
        """
        known = {field.name for field in fields(cls)}
        if set(value) != known:
            raise ValueError(f"preprocess needs exactly the fields {sorted(known)}, got {sorted(value)}")
        try:
            return cls(
                height=int(value["height"]),
                width=int(value["width"]),
                crop_fraction=float(value["crop_fraction"]),
                interpolation=cast(Interpolation, value["interpolation"]),
                mean=_triple(value["mean"]),
                std=_triple(value["std"]),
            )
        except TypeError as error:
            raise ValueError(f"preprocess is malformed: {error}") from error


def _triple(values: Sequence[Any]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError("expected three numbers, one per channel")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Class names; a class's index is its position."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or not all(self.names):
            raise ValueError("labels must be non-empty strings")
        if len(set(self.names)) != len(self.names):
            raise ValueError("labels must be unique")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: of the tensor in the graph.
        datatype: Open Inference Protocol name: FP32, FP16, UINT8, INT64, BYTES, ...
        shape: -1 stands for a dynamic axis.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """Everything that decides a training run besides its data. Build it with `with_defaults`.

    Attributes:
        base_model: name in the catalogue.
        weights: whether the backbone starts pretrained or at random.
        strategy: frozen backbone, or fine-tuned.
        epochs: passes over the training split, >= 1. FINE_TUNE spends them all on the unfrozen network;
            the linear probe that precedes it is not counted.
        batch_size: global, over all workers.
        learning_rate: peak rate of the head.
        backbone_learning_rate_ratio: backbone rate / head rate, in (0, 1]. Only FINE_TUNE uses it.
        weight_decay: decoupled for ADAMW, L2 for SGD.
        optimizer: update rule.
        warmup_fraction: part of all steps with a linearly growing rate, in [0, 1).
        unfreeze_stages: how many stages to train, counted from the output; 0 trains all. Only FINE_TUNE uses it.
        early_stopping_patience: epochs without a better validation result before stopping; 0 never stops early.
        augment: random crops, flips and colour on the training split.
        seed: of initialisation, order and augmentation.
    """

    base_model: str
    weights: Weights
    strategy: Strategy
    epochs: int
    batch_size: int
    learning_rate: float
    backbone_learning_rate_ratio: float
    weight_decay: float
    optimizer: Optimizer
    warmup_fraction: float
    unfreeze_stages: int
    early_stopping_patience: int
    augment: bool
    seed: int

    @classmethod
    def with_defaults(
        cls,
        base_model: str = "efficientnet_lite0",
        *,
        weights: Weights = Weights.PRETRAINED,
        strategy: Strategy = Strategy.FEATURE_EXTRACTION,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        backbone_learning_rate_ratio: float | None = None,
        weight_decay: float | None = None,
        optimizer: Optimizer | None = None,
        warmup_fraction: float | None = None,
        unfreeze_stages: int | None = None,
        early_stopping_patience: int | None = None,
        augment: bool | None = None,
        seed: int | None = None,
    ) -> FinetuneSpec:
        """A complete spec: each value that is None gets the default of its strategy and optimizer.

        A head on standardised features stands a rate ten times that of a whole network, and its epochs cost
        next to nothing, so FEATURE_EXTRACTION makes many.
        """
        tunes = strategy is Strategy.FINE_TUNE
        rule = Optimizer.ADAMW if optimizer is None else optimizer
        rates = {
            (Optimizer.ADAMW, False): 3e-3,
            (Optimizer.ADAMW, True): 1e-3,
            (Optimizer.SGD, False): 5e-2,
            (Optimizer.SGD, True): 1e-2,
        }
        return cls(
            base_model=base_model,
            weights=weights,
            strategy=strategy,
            epochs=_default(epochs, 10 if tunes else 30),
            batch_size=_default(batch_size, 32 if tunes else 64),
            learning_rate=_default(learning_rate, rates[rule, tunes]),
            backbone_learning_rate_ratio=_default(backbone_learning_rate_ratio, 0.1),
            weight_decay=_default(weight_decay, 1e-2 if rule is Optimizer.ADAMW else 1e-4),
            optimizer=rule,
            warmup_fraction=_default(warmup_fraction, 0.1),
            unfreeze_stages=_default(unfreeze_stages, 0),
            early_stopping_patience=_default(early_stopping_patience, 3 if tunes else 8),
            augment=_default(augment, tunes),
            seed=_default(seed, 0),
        )

    def validate(self, violations: Violations, prefix: str = "") -> None:
        """Add one violation for each bad field, its name led by `prefix`.

        Whether the base model exists is for the catalogue to say.
        """

        def check(name: str, good: bool, description: str) -> None:
            if not good:
                violations.add(f"{prefix}{name}", description)

        check("base_model", bool(self.base_model), "must not be empty")
        check("epochs", 1 <= self.epochs <= 10_000, "must be in 1..10000")
        check("batch_size", 1 <= self.batch_size <= 65_536, "must be in 1..65536")
        check("learning_rate", _within(self.learning_rate, 0, 100) and self.learning_rate > 0, "must be in (0, 100]")
        ratio = self.backbone_learning_rate_ratio
        check("backbone_learning_rate_ratio", _within(ratio, 0, 1) and ratio > 0, "must be in (0, 1]")
        check("weight_decay", _within(self.weight_decay, 0, 10), "must be in [0, 10]")
        check("warmup_fraction", _within(self.warmup_fraction, 0, 1) and self.warmup_fraction < 1, "must be in [0, 1)")
        check("unfreeze_stages", 0 <= self.unfreeze_stages <= 1000, "must be in 0..1000; 0 unfreezes all")
        check("early_stopping_patience", 0 <= self.early_stopping_patience <= 10_000, "must be in 0..10000; 0 is off")
        check("seed", 0 <= self.seed <= _MAX_SEED, f"must be in 0..{_MAX_SEED}")

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FinetuneSpec:
        """The reverse of `to_json`.

        Raises:
            ValueError: a field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        if set(value) != known:
            raise ValueError(f"a fine-tune spec needs exactly the fields {sorted(known)}, got {sorted(value)}")
        enums = {
            "weights": Weights(value["weights"]),
            "strategy": Strategy(value["strategy"]),
            "optimizer": Optimizer(value["optimizer"]),
        }
        return cls(**{**value, **enums})


def _default(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _within(value: float, low: float, high: float) -> bool:
    return math.isfinite(value) and low <= value <= high
