import dataclasses
import json
import math

import pytest

from enxerto.kernel.errors import InvalidArgumentError, Violations
from enxerto.vision.finetuning import FinetuneSpec, Optimizer, Strategy
from enxerto.vision.specs import LabelMap, PreprocessSpec

PREPROCESS = PreprocessSpec(224, 200, 0.875, "bicubic", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def _fields(spec: FinetuneSpec) -> set[str]:
    violations = Violations()
    spec.validate(violations, "spec.")
    with pytest.raises(InvalidArgumentError) as error:
        violations.raise_if_any()
    return {violation.field for violation in error.value.violations}


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_defaults_are_valid(strategy: Strategy, optimizer: Optimizer) -> None:
    violations = Violations()
    FinetuneSpec.with_defaults(strategy=strategy, optimizer=optimizer).validate(violations)
    violations.raise_if_any()


def test_every_bad_field_is_reported_at_once() -> None:
    spec = dataclasses.replace(
        FinetuneSpec.with_defaults(),
        base_model="", epochs=0, batch_size=-1, learning_rate=0.0, backbone_learning_rate_ratio=2.0,
        weight_decay=-0.1, warmup_fraction=1.0, unfreeze_stages=-1, early_stopping_patience=-1, seed=-1,
    )  # fmt: skip
    assert _fields(spec) == {
        f"spec.{name}"
        for name in (
            "base_model",
            "epochs",
            "batch_size",
            "learning_rate",
            "backbone_learning_rate_ratio",
            "weight_decay",
            "warmup_fraction",
            "unfreeze_stages",
            "early_stopping_patience",
            "seed",
        )
    }


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_learning_rate_is_positive_and_finite(rate: float) -> None:
    assert _fields(FinetuneSpec.with_defaults(learning_rate=rate)) == {"spec.learning_rate"}


def test_given_values_win_over_defaults() -> None:
    spec = FinetuneSpec.with_defaults(strategy=Strategy.FINE_TUNE, epochs=3, augment=False, weight_decay=0.0)
    assert (spec.epochs, spec.augment, spec.weight_decay) == (3, False, 0.0)


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
