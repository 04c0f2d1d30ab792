"""What CreateSweep accepts, and how it refuses."""

import pytest

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.training import converters
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2, training_run_pb2


def a_request(*parameters, **changed):
    spec = training_run_pb2.TrainingSpec(
        snapshot="projects/default/datasets/digits/snapshots/1",
        base_model="baseModels/efficientnet-lite0",
        model="projects/default/models/digits",
    )
    given = {"spec": spec, "parameters": parameters or (rates(1e-4, 1e-1),), "max_trials": 4}
    sweep = sweep_pb2.Sweep(**{**given, **changed})
    return sweep_service_pb2.CreateSweepRequest(parent="projects/default", sweep=sweep)


def rates(low, high, field="learning_rate", log=True):
    return sweep_pb2.SweepParameter(field=field, float_range=sweep_pb2.FloatRange(min=low, max=high, log=log))


def whole(field, low, high):
    return sweep_pb2.SweepParameter(field=field, int_range=sweep_pb2.IntRange(min=low, max=high))


def choices(field, *values):
    return sweep_pb2.SweepParameter(field=field, choices=sweep_pb2.Choices(values=values))


def refused(request):
    with pytest.raises(InvalidArgumentError) as caught:
        converters.new_sweep(request)
    return {one.field: one.description for one in caught.value.violations}


def test_a_sweep_over_every_kind_of_value_is_accepted():
    new = converters.new_sweep(
        a_request(
            rates(1e-4, 1e-1),
            whole("epochs", 1, 20),
            choices("optimizer", "OPTIMIZER_ADAMW", "OPTIMIZER_SGD"),
            choices("find_learning_rate", "true", "false"),
            choices("base_model", "baseModels/resnet18", "baseModels/efficientnet-lite0"),
            rates(0.0, 0.3, "loss.label_smoothing", log=False),
        )
    )
    assert (len(new.plan.parameters), new.plan.max_parallel_trials) == (6, 1)
    drawn = {"optimizer": "OPTIMIZER_SGD", "loss.label_smoothing": "0.25", "base_model": "baseModels/resnet18"}
    spec = converters.trial_spec(new.plan, drawn)
    # The rate that was left open follows from the optimizer that was drawn.
    assert (spec.finetune.optimizer, spec.finetune.learning_rate) == ("SGD", 5e-2)
    assert (spec.finetune.loss.label_smoothing, spec.finetune.base_model) == (0.25, "resnet18")


def test_a_trial_may_have_values_that_others_leave_without_effect():
    strategies = choices("strategy", "STRATEGY_FEATURE_EXTRACTION", "STRATEGY_FINE_TUNE")
    request = a_request(strategies, whole("unfreezing.stages", 1, 4))
    assert "FINE_TUNE only" in refused(request)["sweep.parameters[1]"]
    request.sweep.spec.strategy = training_run_pb2.STRATEGY_FINE_TUNE
    plan = converters.new_sweep(request).plan
    drawn = {"strategy": "STRATEGY_FEATURE_EXTRACTION", "unfreezing.stages": "2"}
    assert converters.trial_spec(plan, drawn).finetune.unfreezing.stages == 2


@pytest.mark.parametrize(
    ("parameter", "part", "word"),
    [
        (rates(1e-4, 1e-1, "lerning_rate"), ".field", "path"),
        (rates(1e-4, 1e-1, "loss"), ".field", "path"),
        (choices("snapshot", "x"), ".field", "cannot vary"),
        (rates(1e-1, 1e-4), ".float_range.max", "greater"),
        (rates(0.0, 1.0), ".float_range.min", "positive"),
        (rates(1.0, 5.0, "epochs"), ".float_range", "fraction"),
        (whole("learning_rate", 1, 2), ".int_range", "whole"),
        (whole("epochs", 0, 5), "", "'0'"),
        (whole("batch_size", 1, 10**12), "", "too large"),
        (choices("optimizer", "SGD"), "", "OPTIMIZER_ADAMW"),
        (choices("find_learning_rate", "yes"), "", "true or false"),
        (choices("epochs"), ".choices.values", "1 to 100"),
        (sweep_pb2.SweepParameter(field="epochs"), "", "needs"),
        (rates(0.5, 2.0, "loss.label_smoothing"), "", "'2.0'"),
    ],
)
def test_a_bad_parameter_is_named(parameter, part, word):
    found = refused(a_request(parameter))
    assert set(found) == {f"sweep.parameters[0]{part}"}
    assert word in found[f"sweep.parameters[0]{part}"]


def test_all_bad_fields_are_told_at_once():
    request = a_request(rates(1, 2, "x"), whole("epochs", 5, 1), max_trials=0, pruning_grace_epochs=-1, seed=-1)
    request.sweep.spec.base_model = "baseModels/none"
    assert set(refused(request)) == {
        "sweep.spec.base_model",
        "sweep.parameters[0].field",
        "sweep.parameters[1].int_range.max",
        "sweep.max_trials",
        "sweep.pruning_grace_epochs",
        "sweep.seed",
    }
