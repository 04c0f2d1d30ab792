"""What a training run is asked to do besides its data: one complete, checked value. Pure."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from enxerto.kernel.errors import Violations
from enxerto.vision.specs import Task

_T = TypeVar("_T")
_MAX_SEED: Final = 2**63 - 1
_YEAR_S: Final = 365 * 86_400


class Strategy(enum.StrEnum):
    """How much of the pretrained network is trained."""

    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"
    FINE_TUNE = "FINE_TUNE"


class Weights(enum.StrEnum):
    """Where the backbone starts from."""

    PRETRAINED = "PRETRAINED"
    NONE = "NONE"


class Optimizer(enum.StrEnum):
    """Update rule of everything that learns."""

    ADAMW = "ADAMW"
    SGD = "SGD"


class Schedule(enum.StrEnum):
    """The learning rate after its warm-up."""

    COSINE = "COSINE"
    LINEAR = "LINEAR"
    STEP = "STEP"
    CONSTANT = "CONSTANT"
    ONE_CYCLE = "ONE_CYCLE"


class BatchNorm(enum.StrEnum):
    """Batch-norm statistics in stages that learn. AUTO: FROZEN with pretrained weights, LEARNED without."""

    AUTO = "AUTO"
    FROZEN = "FROZEN"
    LEARNED = "LEARNED"


class Sampling(enum.StrEnum):
    """How the images of an epoch are drawn."""

    SHUFFLED = "SHUFFLED"
    BALANCED = "BALANCED"


class Precision(enum.StrEnum):
    """Numbers to compute with. AUTO: mixed where the GPU has it."""

    AUTO = "AUTO"
    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"


class ClassWeights(enum.StrEnum):
    """How much a class counts in the loss."""

    NONE = "NONE"
    BALANCED = "BALANCED"


class AugmentPolicy(enum.StrEnum):
    """How training images are varied."""

    NONE = "NONE"
    LIGHT = "LIGHT"
    RANDAUGMENT = "RANDAUGMENT"


class QuantizationMode(enum.StrEnum):
    """Numbers of the exported graph."""

    NONE = "NONE"
    DYNAMIC_INT8 = "DYNAMIC_INT8"
    STATIC_INT8 = "STATIC_INT8"
    FP16 = "FP16"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """The new classifier."""

    hidden_units: int = 0
    """Of one hidden layer; 0 is a linear head."""
    dropout: float = 0.0
    """Share of features that a step leaves out, in [0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfreezingSpec:
    """Which stages of the backbone learn, and from when on. FINE_TUNE only."""

    stages: int = 0
    """How many, counted from the output; 0 is all."""
    epochs_per_stage: int = 0
    """Epochs between one stage and the next, from the output on; 0 unfreezes all at once."""
    head_warmup_epochs: int = 0
    """Epochs that the head trains alone. Classification trains a probe on cached features instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """What is minimised."""

    label_smoothing: float = 0.0
    """In [0, 1)."""
    class_weights: ClassWeights = ClassWeights.NONE
    focal_gamma: float = 0.0
    """Exponent of the focal loss (Lin et al. 2017, arXiv:1708.02002); 0 is cross entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSpec:
    """How training images are varied."""

    policy: AugmentPolicy = AugmentPolicy.NONE
    magnitude: int = 9
    """RandAugment's, 0 to 30."""
    mixup_alpha: float = 0.0
    """Parameter of the beta distribution (Zhang et al. 2018, arXiv:1710.09412); 0 is off."""
    cutmix_alpha: float = 0.0
    """Parameter of the beta distribution (Yun et al. 2019, arXiv:1905.04899); 0 is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSpec:
    """When training ends before its last epoch."""

    early_stopping_patience: int = 0
    """Epochs without a better validation score; 0 never."""
    max_duration_s: float = 0.0
    """From the first step; 0 is no limit."""
    target_score: float | None = None
    """Validation score that is good enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationSpec:
    """A smaller version of the exported graph."""

    mode: QuantizationMode = QuantizationMode.NONE
    max_score_loss: float = 0.01
    """How much of the task's own metric may be lost, in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSpec:
    """When a run writes down where it is."""

    every_epochs: int = 1
    """0 never."""
    every_s: float = 0.0
    """At the end of the first epoch after so much time; instead of `every_epochs` unless 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleSpec:
    """The STYLE task. A weight that is None is chosen by the base model."""

    content_weight: float = 1.0
    style_weight: float | None = None
    total_variation_weight: float | None = None
    steps: int = 300
    """Of the Gatys optimisation, for each picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """Everything that decides a training run besides its data. Build it with `with_defaults`.

    Attributes:
        base_model: name in the catalogue, snake case.
        encoder: name in the catalogue of the backbone inside a base model that takes any; else empty.
        task: of the base model.
        weights: whether the backbone starts pretrained or at random.
        strategy: frozen backbone, or fine-tuned.
        image_size: side of the square input in pixels; 0 is the base model's own.
        epochs: passes over the training split, >= 1. Before fine-tuning the heads
            have as many of their own; the epochs of classification's linear probe are its own.
        batch_size: global, over all workers; one step of `accumulation_steps` is that many batches.
        learning_rate: peak rate of the head.
        backbone_learning_rate_ratio: rate of the backbone's last stage / head rate, in (0, 1]. FINE_TUNE only.
        stage_learning_rate_decay: rate of a stage / rate of the next towards the output, in (0, 1]. FINE_TUNE only.
        weight_decay: decoupled for ADAMW, L2 for SGD.
        optimizer: update rule.
        schedule: of the rate after its warm-up.
        warmup_fraction: part of all steps with a linearly growing rate, in [0, 1).
        ema_decay: of the moving average of the weights a step, in [0, 1); 0 is off. The average is what is validated.
        precision: of the computation.
        gradient_clip_norm: longest gradient over all parameters; 0 is off.
        accumulation_steps: whose gradients are summed before the weights change.
        find_learning_rate: search the rate before training (Smith 2017, arXiv:1506.01186).
        batch_norm: statistics in stages that learn.
        sampling: how the images of an epoch are drawn.
        seed: of initialisation, order and augmentation.
    """

    base_model: str
    encoder: str
    task: Task
    weights: Weights
    strategy: Strategy
    image_size: int
    epochs: int
    batch_size: int
    learning_rate: float
    backbone_learning_rate_ratio: float
    stage_learning_rate_decay: float
    weight_decay: float
    optimizer: Optimizer
    schedule: Schedule
    warmup_fraction: float
    ema_decay: float
    precision: Precision
    gradient_clip_norm: float
    accumulation_steps: int
    find_learning_rate: bool
    batch_norm: BatchNorm
    sampling: Sampling
    seed: int
    head: HeadSpec = field(default_factory=HeadSpec)
    unfreezing: UnfreezingSpec = field(default_factory=UnfreezingSpec)
    loss: LossSpec = field(default_factory=LossSpec)
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    stop: StopSpec = field(default_factory=StopSpec)
    quantization: QuantizationSpec = field(default_factory=QuantizationSpec)
    checkpoints: CheckpointSpec = field(default_factory=CheckpointSpec)
    style: StyleSpec = field(default_factory=StyleSpec)

    @classmethod
    def with_defaults(
        cls,
        base_model: str = "efficientnet_lite0",
        *,
        task: Task = Task.CLASSIFICATION,
        encoder: str = "",
        weights: Weights = Weights.PRETRAINED,
        strategy: Strategy = Strategy.FEATURE_EXTRACTION,
        image_size: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        backbone_learning_rate_ratio: float | None = None,
        stage_learning_rate_decay: float | None = None,
        weight_decay: float | None = None,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        warmup_fraction: float | None = None,
        ema_decay: float | None = None,
        precision: Precision | None = None,
        gradient_clip_norm: float | None = None,
        accumulation_steps: int | None = None,
        find_learning_rate: bool = False,
        batch_norm: BatchNorm | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
        head: HeadSpec | None = None,
        unfreezing: UnfreezingSpec | None = None,
        loss: LossSpec | None = None,
        augmentation: AugmentationSpec | None = None,
        stop: StopSpec | None = None,
        quantization: QuantizationSpec | None = None,
        checkpoints: CheckpointSpec | None = None,
        style: StyleSpec | None = None,
    ) -> FinetuneSpec:
        """A complete spec: each value that is None gets the default of its task, strategy and optimizer."""
        tunes = strategy is Strategy.FINE_TUNE
        rule = Optimizer.ADAMW if optimizer is None else optimizer
        usual = _usual(task, tunes, rule)
        policy = AugmentPolicy.LIGHT if tunes or task is not Task.CLASSIFICATION else AugmentPolicy.NONE
        return cls(
            base_model=base_model,
            encoder=encoder,
            task=task,
            weights=weights,
            strategy=strategy,
            image_size=_default(image_size, 0),
            epochs=_default(epochs, usual.epochs),
            batch_size=_default(batch_size, usual.batch_size),
            learning_rate=_default(learning_rate, usual.learning_rate),
            backbone_learning_rate_ratio=_default(backbone_learning_rate_ratio, 0.1),
            stage_learning_rate_decay=_default(stage_learning_rate_decay, 1.0),
            weight_decay=_default(weight_decay, 1e-2 if rule is Optimizer.ADAMW else 1e-4),
            optimizer=rule,
            schedule=_default(schedule, Schedule.COSINE),
            warmup_fraction=_default(warmup_fraction, 0.1),
            ema_decay=_default(ema_decay, 0.0),
            precision=_default(precision, Precision.AUTO),
            gradient_clip_norm=_default(gradient_clip_norm, 5.0),
            accumulation_steps=_default(accumulation_steps, 1),
            find_learning_rate=find_learning_rate,
            batch_norm=_default(batch_norm, BatchNorm.AUTO),
            sampling=_default(sampling, Sampling.SHUFFLED),
            seed=_default(seed, 0),
            head=_default(head, HeadSpec()),
            unfreezing=_default(unfreezing, UnfreezingSpec()),
            loss=_default(loss, LossSpec()),
            augmentation=_default(augmentation, AugmentationSpec(policy=policy)),
            stop=_default(stop, StopSpec(early_stopping_patience=usual.patience)),
            quantization=_default(quantization, QuantizationSpec()),
            checkpoints=_default(checkpoints, CheckpointSpec()),
            style=_default(style, StyleSpec()),
        )

    @property
    def tunes(self) -> bool:
        """Whether stages of the backbone learn."""
        return self.strategy is Strategy.FINE_TUNE

    def validate(self, violations: Violations, prefix: str = "") -> None:
        """Add one violation for each bad field, its name led by `prefix`, as the contract names it.

        Whether the base model exists, and has so many stages, is for the catalogue to say.
        """

        checks = _Checks(violations, prefix)
        self._check_optimisation(checks)
        self._check_groups(checks)
        self._check_task(checks)

    def _check_optimisation(self, checks: _Checks) -> None:
        checks.holds("base_model", bool(self.base_model), "must not be empty")
        checks.holds("image_size", self.image_size == 0 or 32 <= self.image_size <= 2048, "must be in 32..2048")
        checks.within("epochs", self.epochs, 1, 10_000)
        checks.within("batch_size", self.batch_size, 1, 65_536)
        checks.within("learning_rate", self.learning_rate, 0, 100, above=True)
        checks.within("backbone_learning_rate_ratio", self.backbone_learning_rate_ratio, 0, 1, above=True)
        checks.within("stage_learning_rate_decay", self.stage_learning_rate_decay, 0, 1, above=True)
        checks.within("weight_decay", self.weight_decay, 0, 10)
        checks.below_one("warmup_fraction", self.warmup_fraction)
        checks.below_one("ema_decay", self.ema_decay)
        checks.within("gradient_clip_norm", self.gradient_clip_norm, 0, 1e6)
        checks.within("accumulation_steps", self.accumulation_steps, 1, 1024)
        checks.within("seed", self.seed, 0, _MAX_SEED)

    def _check_groups(self, checks: _Checks) -> None:
        checks.within("head.hidden_units", self.head.hidden_units, 0, 8192)
        checks.below_one("head.dropout", self.head.dropout)
        checks.within("unfreezing.stages", self.unfreezing.stages, 0, 1000)
        checks.within("unfreezing.epochs_per_stage", self.unfreezing.epochs_per_stage, 0, 10_000)
        checks.within("unfreezing.head_warmup_epochs", self.unfreezing.head_warmup_epochs, 0, 10_000)
        checks.below_one("loss.label_smoothing", self.loss.label_smoothing)
        checks.within("loss.focal_gamma", self.loss.focal_gamma, 0, 10)
        checks.within("augmentation.magnitude", self.augmentation.magnitude, 0, 30)
        checks.within("augmentation.mixup_alpha", self.augmentation.mixup_alpha, 0, 10)
        checks.within("augmentation.cutmix_alpha", self.augmentation.cutmix_alpha, 0, 10)
        checks.within("stop.early_stopping_patience", self.stop.early_stopping_patience, 0, 10_000)
        checks.within("stop.max_duration", self.stop.max_duration_s, 0, _YEAR_S)
        target = self.stop.target_score
        checks.holds("stop.target_score", target is None or math.isfinite(target), "must be finite")
        checks.within("quantization.max_score_loss", self.quantization.max_score_loss, 0, 1)
        checks.within("checkpoints.every_epochs", self.checkpoints.every_epochs, 0, 10_000)
        checks.within("checkpoints.every_duration", self.checkpoints.every_s, 0, _YEAR_S)
        checks.within("style.content_weight", self.style.content_weight, 0, 1e12)
        checks.within("style.style_weight", self.style.style_weight or 0.0, 0, 1e12)
        checks.within("style.total_variation_weight", self.style.total_variation_weight or 0.0, 0, 1e12)
        checks.within("style.steps", self.style.steps, 1, 10_000)

    def _check_task(self, checks: _Checks) -> None:
        def only(name: str, used: bool, *tasks: Task) -> None:
            checks.holds(name, not used or self.task in tasks, f"is for {' and '.join(tasks)} only")

        labels = (Task.CLASSIFICATION, Task.SEGMENTATION)
        only("head", self.head != HeadSpec(), Task.CLASSIFICATION)
        only("sampling", self.sampling is not Sampling.SHUFFLED, Task.CLASSIFICATION)
        only("loss.label_smoothing", self.loss.label_smoothing > 0, *labels)
        only("loss.class_weights", self.loss.class_weights is not ClassWeights.NONE, *labels)
        only("loss.focal_gamma", self.loss.focal_gamma > 0, *labels)
        only("augmentation.policy", self.augmentation.policy is AugmentPolicy.RANDAUGMENT, Task.CLASSIFICATION)
        for name, alpha in (("mixup", self.augmentation.mixup_alpha), ("cutmix", self.augmentation.cutmix_alpha)):
            field_name = f"augmentation.{name}_alpha"
            only(field_name, alpha > 0, Task.CLASSIFICATION)
            checks.holds(
                field_name, alpha == 0 or self.tunes, "needs FINE_TUNE: cached features cannot be mixed as pictures"
            )
        only("style", self.style != StyleSpec(), Task.STYLE)

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FinetuneSpec:
        """The reverse of `to_json`.

        Raises:
            ValueError: a field is missing or unknown, or not one of its values.
        """
        try:
            return _from_json(cls, value)
        except TypeError as error:
            raise ValueError(f"not a fine-tune spec: {error}") from error


@dataclass(frozen=True, slots=True)
class _Checks:
    """Notes one violation for each bad field."""

    violations: Violations
    prefix: str

    def holds(self, name: str, good: bool, description: str) -> None:
        if not good:
            self.violations.add(f"{self.prefix}{name}", description)

    def within(self, name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
        good = math.isfinite(value) and low <= value <= high and not (above and value == low)
        self.holds(name, good, f"must be in {'(' if above else '['}{low:g}, {high:g}]")

    def below_one(self, name: str, value: float) -> None:
        self.holds(name, math.isfinite(value) and 0 <= value < 1, "must be in [0, 1)")


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


def _from_json(kind: type[_T], value: Mapping[str, Any]) -> _T:
    known = {one.name for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(value) != known:
        raise ValueError(f"{kind.__name__} needs exactly the fields {sorted(known)}, got {sorted(value)}")
    read = {}
    for name, item in value.items():
        made = _KINDS.get(name)
        if made is None:
            read[name] = item
        elif isinstance(made, type) and issubclass(made, enum.Enum):
            read[name] = made(item)
        else:
            read[name] = _from_json(made, item)
    return kind(**read)


@dataclass(frozen=True, slots=True)
class _Usual:
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int


def _usual(task: Task, tunes: bool, rule: Optimizer) -> _Usual:
    """Defaults of a task. A head on cached features stands a high rate, and its epochs cost next to nothing."""
    sgd = rule is Optimizer.SGD
    if task is Task.CLASSIFICATION:
        rate = (1e-2 if tunes else 5e-2) if sgd else (1e-3 if tunes else 3e-3)
        return _Usual(10 if tunes else 30, 32 if tunes else 64, rate, 3 if tunes else 8)
    rate = {Task.DETECTION: 1e-3, Task.SEGMENTATION: 1e-3, Task.STYLE: 1e-3}[task]
    return _Usual(20, 8, 10 * rate if sgd else rate, 5)


def _default(value: _T | None, default: _T) -> _T:
    return default if value is None else value
