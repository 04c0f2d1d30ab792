"""One complete, checked value: everything that decides a training run besides its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from enxerto.kernel.errors import Violations
from enxerto.vision.finetuning.checks import check, check_effect
from enxerto.vision.finetuning.choices import (
    AugmentPolicy,
    BatchNorm,
    Optimizer,
    Precision,
    Sampling,
    Schedule,
    Strategy,
    Weights,
)
from enxerto.vision.finetuning.defaults import given, usual
from enxerto.vision.finetuning.documents import read
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
        ordinary = usual(task, tunes, rule)
        policy = AugmentPolicy.LIGHT if tunes or task is not Task.CLASSIFICATION else AugmentPolicy.NONE
        return cls(
            base_model=base_model,
            encoder=encoder,
            task=task,
            weights=weights,
            strategy=strategy,
            image_size=given(image_size, 0),
            epochs=given(epochs, ordinary.epochs),
            batch_size=given(batch_size, ordinary.batch_size),
            learning_rate=given(learning_rate, ordinary.learning_rate),
            backbone_learning_rate_ratio=given(backbone_learning_rate_ratio, 0.1),
            stage_learning_rate_decay=given(stage_learning_rate_decay, 1.0),
            weight_decay=given(weight_decay, 1e-2 if rule is Optimizer.ADAMW else 1e-4),
            optimizer=rule,
            schedule=given(schedule, Schedule.COSINE),
            warmup_fraction=given(warmup_fraction, 0.1),
            ema_decay=given(ema_decay, 0.0),
            precision=given(precision, Precision.AUTO),
            gradient_clip_norm=given(gradient_clip_norm, 5.0),
            accumulation_steps=given(accumulation_steps, 1),
            find_learning_rate=find_learning_rate,
            batch_norm=given(batch_norm, BatchNorm.AUTO),
            sampling=given(sampling, Sampling.SHUFFLED),
            seed=given(seed, 0),
            head=given(head, HeadSpec()),
            unfreezing=given(unfreezing, UnfreezingSpec()),
            loss=given(loss, LossSpec()),
            augmentation=given(augmentation, AugmentationSpec(policy=policy)),
            stop=given(stop, StopSpec(early_stopping_patience=ordinary.patience)),
            quantization=given(quantization, QuantizationSpec()),
            checkpoints=given(checkpoints, CheckpointSpec()),
            style=given(style, StyleSpec()),
        )

    @property
    def tunes(self) -> bool:
        """Whether stages of the backbone learn."""
        return self.strategy is Strategy.FINE_TUNE

    @property
    def paints_pictures(self) -> bool:
        """Whether pictures are optimised, as Gatys does, and no network learns."""
        return self.base_model.startswith("gatys")

    def validate(self, violations: Violations, prefix: str = "") -> None:
        """Add one violation for each bad field, its name led by `prefix`, as the contract names it.

        Whether the base model exists, and has so many stages, is for the catalogue to say.
        """
        check(self, violations, prefix)

    def validate_effect(self, violations: Violations, prefix: str = "") -> None:
        """Add one violation for each field that differs from its default and that such a run does not look at.

        For what people ask for. Other specs may hold such values: the service derives some from those that were asked
        for, and a trial of a sweep has a value for each parameter whatever the others are.
        """
        check_effect(self, violations, prefix)

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
            return read(cls, value)
        except TypeError as error:
            raise ValueError(f"not a fine-tune spec: {error}") from error
