"""What a spec may hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from enxerto.kernel.errors import Violations
from enxerto.vision.finetuning.choices import (
    AugmentPolicy,
    ClassWeights,
    Optimizer,
    QuantizationMode,
    Sampling,
)
from enxerto.vision.finetuning.groups import HeadSpec, StyleSpec
from enxerto.vision.specs import Task

if TYPE_CHECKING:
    from enxerto.vision.finetuning.spec import FinetuneSpec

_MAX_SEED: Final = 2**63 - 1
_YEAR_S: Final = 365 * 86_400
_TUNING: Final = (
    "backbone_learning_rate_ratio",
    "stage_learning_rate_decay",
    "batch_norm",
    "unfreezing.stages",
    "unfreezing.epochs_per_stage",
    "unfreezing.head_warmup_epochs",
)
"""Of stages that learn."""
_LEARNING: Final = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "optimizer",
    "schedule",
    "warmup_fraction",
    "ema_decay",
    "precision",
    "gradient_clip_norm",
    "accumulation_steps",
    "find_learning_rate",
    "augmentation.policy",
    "stop.early_stopping_patience",
    "stop.target_score",
    "quantization.mode",
    "quantization.max_score_loss",
)
"""Of a network that learns and is exported."""


def check(spec: FinetuneSpec, violations: Violations, prefix: str) -> None:
    """Add one violation for each bad field, its name led by `prefix`."""
    checks = _Checks(violations, prefix)
    _optimisation(checks, spec)
    _groups(checks, spec)
    _task(checks, spec)


def check_effect(spec: FinetuneSpec, violations: Violations, prefix: str) -> None:
    """Add one violation for each field that differs from its default and has no effect."""
    checks = _Checks(violations, prefix)
    ordinary = type(spec).with_defaults(
        spec.base_model, task=spec.task, strategy=spec.strategy, optimizer=spec.optimizer
    )
    # Rate and decay are held against those that follow from the optimizer, so that it alone is named.
    ordinary = replace(ordinary, optimizer=Optimizer.ADAMW)

    def idle(names: tuple[str, ...], description: str) -> None:
        for name in names:
            read = attrgetter(name)
            checks.holds(name, read(spec) == read(ordinary), description)

    if spec.paints_pictures:
        idle((*_LEARNING, *_TUNING), "has no effect: Gatys' method optimises pictures, and no network learns")
    elif spec.task is Task.STYLE:
        idle(_TUNING, "has no effect: no pretrained stage learns in STYLE")
        idle(("style.steps",), "is for Gatys' method only")
    elif not spec.tunes:
        idle(_TUNING, "is for FINE_TUNE only")
    if spec.task is not Task.CLASSIFICATION:
        idle(("augmentation.magnitude",), "is for CLASSIFICATION only")
    elif spec.augmentation.policy is not AugmentPolicy.RANDAUGMENT:
        idle(("augmentation.magnitude",), "is for RANDAUGMENT only")
    if spec.quantization.mode is QuantizationMode.NONE:
        idle(("quantization.max_score_loss",), "has no effect without quantization.mode")
    if spec.checkpoints.every_s:
        idle(("checkpoints.every_epochs",), "is not looked at beside checkpoints.every_duration")


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


def _optimisation(checks: _Checks, spec: FinetuneSpec) -> None:
    checks.holds("base_model", bool(spec.base_model), "must not be empty")
    checks.holds("image_size", spec.image_size == 0 or 32 <= spec.image_size <= 2048, "must be in 32..2048")
    checks.within("epochs", spec.epochs, 1, 10_000)
    checks.within("batch_size", spec.batch_size, 1, 65_536)
    checks.within("learning_rate", spec.learning_rate, 0, 100, above=True)
    checks.within("backbone_learning_rate_ratio", spec.backbone_learning_rate_ratio, 0, 1, above=True)
    checks.within("stage_learning_rate_decay", spec.stage_learning_rate_decay, 0, 1, above=True)
    checks.within("weight_decay", spec.weight_decay, 0, 10)
    checks.below_one("warmup_fraction", spec.warmup_fraction)
    checks.below_one("ema_decay", spec.ema_decay)
    checks.within("gradient_clip_norm", spec.gradient_clip_norm, 0, 1e6)
    checks.within("accumulation_steps", spec.accumulation_steps, 1, 1024)
    checks.within("seed", spec.seed, 0, _MAX_SEED)


def _groups(checks: _Checks, spec: FinetuneSpec) -> None:
    checks.within("head.hidden_units", spec.head.hidden_units, 0, 8192)
    checks.below_one("head.dropout", spec.head.dropout)
    checks.within("unfreezing.stages", spec.unfreezing.stages, 0, 1000)
    checks.within("unfreezing.epochs_per_stage", spec.unfreezing.epochs_per_stage, 0, 10_000)
    checks.within("unfreezing.head_warmup_epochs", spec.unfreezing.head_warmup_epochs, 0, 10_000)
    warm_up = spec.unfreezing.head_warmup_epochs
    checks.holds("unfreezing.head_warmup_epochs", not warm_up or warm_up < spec.epochs, "must be less than epochs")
    checks.below_one("loss.label_smoothing", spec.loss.label_smoothing)
    checks.within("loss.focal_gamma", spec.loss.focal_gamma, 0, 10)
    checks.within("augmentation.magnitude", spec.augmentation.magnitude, 0, 30)
    checks.within("augmentation.mixup_alpha", spec.augmentation.mixup_alpha, 0, 10)
    checks.within("augmentation.cutmix_alpha", spec.augmentation.cutmix_alpha, 0, 10)
    checks.within("stop.early_stopping_patience", spec.stop.early_stopping_patience, 0, 10_000)
    checks.within("stop.max_duration", spec.stop.max_duration_s, 0, _YEAR_S)
    target = spec.stop.target_score
    checks.holds("stop.target_score", target is None or math.isfinite(target), "must be finite")
    checks.within("quantization.max_score_loss", spec.quantization.max_score_loss, 0, 1)
    checks.within("checkpoints.every_epochs", spec.checkpoints.every_epochs, 0, 10_000)
    checks.within("checkpoints.every_duration", spec.checkpoints.every_s, 0, _YEAR_S)
    checks.within("style.content_weight", spec.style.content_weight, 0, 1e12)
    checks.within("style.style_weight", spec.style.style_weight or 0.0, 0, 1e12)
    checks.within("style.total_variation_weight", spec.style.total_variation_weight or 0.0, 0, 1e12)
    checks.within("style.steps", spec.style.steps, 1, 10_000)


def _task(checks: _Checks, spec: FinetuneSpec) -> None:
    def only(name: str, used: bool, *tasks: Task) -> None:
        checks.holds(name, not used or spec.task in tasks, f"is for {' and '.join(tasks)} only")

    labels = (Task.CLASSIFICATION, Task.SEGMENTATION)
    target = spec.stop.target_score
    only("head", spec.head != HeadSpec(), Task.CLASSIFICATION)
    only("sampling", spec.sampling is not Sampling.SHUFFLED, Task.CLASSIFICATION)
    only("loss.label_smoothing", spec.loss.label_smoothing > 0, *labels)
    only("loss.class_weights", spec.loss.class_weights is not ClassWeights.NONE, *labels)
    only("loss.focal_gamma", spec.loss.focal_gamma > 0, *labels)
    only("augmentation.policy", spec.augmentation.policy is AugmentPolicy.RANDAUGMENT, Task.CLASSIFICATION)
    for name, alpha in (("mixup", spec.augmentation.mixup_alpha), ("cutmix", spec.augmentation.cutmix_alpha)):
        field_name = f"augmentation.{name}_alpha"
        only(field_name, alpha > 0, Task.CLASSIFICATION)
        checks.holds(
            field_name, alpha == 0 or spec.tunes, "needs FINE_TUNE: cached features cannot be mixed as pictures"
        )
    if spec.task is Task.STYLE and target is not None:
        checks.holds("stop.target_score", target >= 0, "must not be negative: it is a loss")
    only("style", spec.style != StyleSpec(), Task.STYLE)
