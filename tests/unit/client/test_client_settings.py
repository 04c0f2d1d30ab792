"""Training settings by the contract's names, at any depth."""

from datetime import timedelta
from typing import Any, get_type_hints

import pytest
from google.protobuf.duration_pb2 import Duration

from enxerto.client import Client, TrainingSettings, _settings, parse_settings
from enxerto.training.v1 import training_run_pb2
from fakes.scripted_services import ScriptedServices

SNAPSHOT = "projects/default/datasets/flowers/snapshots/1"
APART = {"snapshot", "base_model", "model"}


def fields(descriptor: Any) -> set[str]:
    return {field.name for field in descriptor.fields}


def test_every_field_of_the_contract_has_a_typed_setting() -> None:
    spec = training_run_pb2.TrainingSpec.DESCRIPTOR
    hints = get_type_hints(TrainingSettings)
    assert set(hints) == fields(spec) - APART
    for name, hint in hints.items():
        message = spec.fields_by_name[name].message_type
        if message is not None:
            group = next(one for one in hint.__args__ if hasattr(one, "__total__"))
            assert set(get_type_hints(group)) == fields(message), name


def test_what_is_said_comes_back_as_it_was_said() -> None:
    said = {
        "strategy": "FINE_TUNE",
        "epochs": 5,
        "learning_rate": 0.01,
        "schedule": "ONE_CYCLE",
        "seed": 7,
        "head": {"hidden_units": 128, "dropout": 0.2},
        "unfreezing": {"stages": 2, "head_warmup_epochs": 0},
        "loss": {"class_weights": "BALANCED", "focal_gamma": 2.0},
        "augmentation": {"policy": "RANDAUGMENT", "magnitude": 9},
        "stop": {"early_stopping_patience": 0, "max_duration": 90.0},
        "find_learning_rate": True,
        "quantization": {"mode": "STATIC_INT8"},
    }
    assert _settings.settings_of(_settings.training_spec(said)) == said


@pytest.mark.parametrize("text", ["fine-tune", "FINE_TUNE", "Fine_Tune", "STRATEGY_FINE_TUNE"])
def test_choices_are_short_names_in_either_case(text: str) -> None:
    assert _settings.training_spec({"strategy": text}).strategy == training_run_pb2.STRATEGY_FINE_TUNE


@pytest.mark.parametrize("value", [90, 90.0, timedelta(seconds=90)])
def test_durations_are_seconds(value: Any) -> None:
    assert _settings.training_spec({"stop": {"max_duration": value}}).stop.max_duration == Duration(seconds=90)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"learningrate": 1}, TypeError, "learningrate"),
        ({"loss": {"gamma": 1}}, TypeError, "loss.gamma"),
        ({"model": "x"}, TypeError, "argument of its own"),
        ({"strategy": "slow"}, ValueError, "FEATURE_EXTRACTION, FINE_TUNE"),
        ({"strategy": "unspecified"}, ValueError, "FEATURE_EXTRACTION"),
        ({"loss": 3}, ValueError, "mapping"),
        ({"epochs": "three"}, ValueError, "epochs"),
        ({"epochs": 10**11}, ValueError, "epochs does not take 100000000000"),
        ({"stop": {"max_duration": float("inf")}}, ValueError, "stop.max_duration does not take inf"),
        ({"stop": {"max_duration": float("nan")}}, ValueError, "stop.max_duration does not take nan"),
        ({"stop": {"max_duration": "long"}}, ValueError, "stop.max_duration does not take 'long'"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _settings.training_spec(settings)


def test_assignments_reach_every_depth() -> None:
    text = ["epochs=5", "loss.focal_gamma=2", "stop.max-duration=60", "find_learning_rate=TRUE", "precision=bf16"]
    assert parse_settings(text) == {
        "epochs": 5,
        "loss": {"focal_gamma": 2.0},
        "stop": {"max_duration": 60.0},
        "find_learning_rate": True,
        "precision": "bf16",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs", "FIELD=VALUE"),
        ("epochs=many", "whole number"),
        ("loss=1", "loss.label_smoothing"),
        ("speed=1", "epochs"),
        ("loss.speed=1", "focal_gamma"),
        ("epochs.x=1", "epochs.x"),
        ("precision=fp8", "FP32, BF16, FP16"),
        ("find_learning_rate=maybe", "true or false"),
        ("stop.max_duration=long", "seconds"),
        ("stop.max_duration=inf", "stop.max_duration does not take inf"),
        ("epochs=99999999999", "epochs does not take"),
        ("snapshot=x", "no such"),
    ],
)
def test_a_bad_assignment_says_what_is_possible(text: str, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        parse_settings([text])


def test_a_run_is_started_with_all_of_it(client: Client, services: ScriptedServices) -> None:
    services.on("CreateTrainingRun", lambda request, _context: request.training_run)
    run = client.train(
        SNAPSHOT,
        model="flowers",
        base_model="unet",
        encoder="efficientnet-lite0",
        epochs=3,
        loss={"class_weights": "balanced"},
        quantization=None,
    )
    spec = services.requests("CreateTrainingRun")[0].training_run.spec
    assert (spec.base_model, spec.encoder) == ("baseModels/unet", "baseModels/efficientnet-lite0")
    assert spec.loss.class_weights == training_run_pb2.Loss.CLASS_WEIGHTS_BALANCED
    assert not spec.HasField("quantization")
    assert run.settings == {"epochs": 3, "loss": {"class_weights": "BALANCED"}}
    assert run.encoder == "baseModels/efficientnet-lite0"
