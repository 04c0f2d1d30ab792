import json
import math

import pytest

from enxerto.kernel.errors import InvalidArgumentError, Violations
from enxerto.vision.finetuning import (
    AugmentationSpec,
    AugmentPolicy,
    CheckpointSpec,
    FinetuneSpec,
    HeadSpec,
    LossSpec,
    Optimizer,
    QuantizationSpec,
    Sampling,
    StopSpec,
    Strategy,
    StyleSpec,
    UnfreezingSpec,
)
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task

PREPROCESS = PreprocessSpec(224, 200, 0.875, "bicubic", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def _fields(spec: FinetuneSpec) -> set[str]:
    violations = Violations()
    spec.validate(violations, "spec.")
    try:
        violations.raise_if_any()
    except InvalidArgumentError as error:
        return {violation.field for violation in error.violations}
    return set()


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_defaults_break_no_rule(task: Task, strategy: Strategy, optimizer: Optimizer) -> None:
    assert _fields(FinetuneSpec.with_defaults(task=task, strategy=strategy, optimizer=optimizer)) == set()


def test_every_bad_field_is_reported_at_once() -> None:
    spec = FinetuneSpec.with_defaults(
        "", image_size=16, epochs=0, batch_size=-1, learning_rate=0.0, backbone_learning_rate_ratio=2.0,
        stage_learning_rate_decay=0.0, weight_decay=-0.1, warmup_fraction=1.0, ema_decay=1.0, gradient_clip_norm=-1.0,
        accumulation_steps=0, seed=-1, head=HeadSpec(hidden_units=-1, dropout=1.0),
        unfreezing=UnfreezingSpec(stages=-1, epochs_per_stage=-1, head_warmup_epochs=-1),
        loss=LossSpec(label_smoothing=1.0, focal_gamma=11),
        augmentation=AugmentationSpec(magnitude=31, mixup_alpha=-1, cutmix_alpha=math.nan),
        stop=StopSpec(early_stopping_patience=-1, max_duration_s=-1, target_score=math.inf),
        quantization=QuantizationSpec(max_score_loss=2), checkpoints=CheckpointSpec(every_epochs=-1, every_s=math.inf),
    )  # fmt: skip
    names = (
        "base_model image_size epochs batch_size learning_rate backbone_learning_rate_ratio stage_learning_rate_decay "
        "weight_decay warmup_fraction ema_decay gradient_clip_norm accumulation_steps seed head.hidden_units "
        "head.dropout unfreezing.stages unfreezing.epochs_per_stage unfreezing.head_warmup_epochs loss.label_smoothing "
        "loss.focal_gamma augmentation.magnitude augmentation.mixup_alpha augmentation.cutmix_alpha "
        "stop.early_stopping_patience stop.max_duration stop.target_score quantization.max_score_loss "
        "checkpoints.every_epochs checkpoints.every_duration"
    )
    assert _fields(spec) == {f"spec.{name}" for name in names.split()}


def test_what_a_task_does_not_know_is_refused() -> None:
    spec = FinetuneSpec.with_defaults(
        task=Task.DETECTION,
        strategy=Strategy.FINE_TUNE,
        head=HeadSpec(hidden_units=8),
        sampling=Sampling.BALANCED,
        loss=LossSpec(focal_gamma=2),
        augmentation=AugmentationSpec(policy=AugmentPolicy.RANDAUGMENT, mixup_alpha=0.2),
        style=StyleSpec(steps=5),
    )
    names = ("head", "sampling", "loss.focal_gamma", "augmentation.policy", "augmentation.mixup_alpha", "style")
    assert _fields(spec) == {f"spec.{name}" for name in names}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_learning_rate_is_positive_and_finite(rate: float) -> None:
    assert _fields(FinetuneSpec.with_defaults(learning_rate=rate)) == {"spec.learning_rate"}


def test_given_values_win_over_defaults() -> None:
    spec = FinetuneSpec.with_defaults(strategy=Strategy.FINE_TUNE, epochs=3, image_size=96, weight_decay=0.0)
    assert (spec.epochs, spec.image_size, spec.weight_decay) == (3, 96, 0.0)


def test_specs_survive_json() -> None:
    spec = FinetuneSpec.with_defaults(strategy=Strategy.FINE_TUNE)
    assert FinetuneSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert PreprocessSpec.from_json(json.loads(json.dumps(PREPROCESS.to_json()))) == PREPROCESS


def test_a_spec_with_an_unknown_or_missing_field_is_refused() -> None:
    with pytest.raises(ValueError, match="fields"):
        PreprocessSpec.from_json({**PREPROCESS.to_json(), "gamma": 1})
    with pytest.raises(ValueError, match="fields"):
        FinetuneSpec.from_json({"base_model": "resnet18"})


def test_labels_are_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        LabelMap(("cat", "cat"))
