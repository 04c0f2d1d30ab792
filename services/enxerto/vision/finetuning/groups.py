"""Settings of a spec that belong together, each with its defaults."""

from dataclasses import dataclass

from enxerto.vision.finetuning.choices import AugmentPolicy, ClassWeights, QuantizationMode


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
    """Validation result, in the task's own metric, that is good enough: for STYLE a loss, which may be lower."""


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
