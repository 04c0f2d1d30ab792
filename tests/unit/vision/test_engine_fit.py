"""The loop, driven by a network of a few numbers."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from enxerto.vision.finetuning import (
    BatchNorm,
    CheckpointSpec,
    FinetuneSpec,
    Optimizer,
    Schedule,
    StopSpec,
    Strategy,
    UnfreezingSpec,
)
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.engine import (
    Attempt,
    Before,
    Fitted,
    StopReason,
    TrainingDivergedError,
    fit,
    fit_heads_first,
    read_before,
)
from enxerto.vision.torch.engine.layers import Layers
from enxerto.vision.torch.learner import Score
from enxerto.vision.torch.progress import Phase, StepReport, Steps
from fakes.checkpoints import MemoryCheckpoints
from fakes.numbers_learner import NumbersLearner, Pair, a_job, a_spec


class StoppedByHandError(Exception):
    pass


def _fit(spec: FinetuneSpec, learner: NumbersLearner, epochs: int = 4, **values: Any) -> Any:
    extra = {key: values.pop(key) for key in ("start", "before", "ahead", "trains_backbone") if key in values}
    given = {"trains_backbone": True, **extra}
    job = a_job(spec, **values)
    return fit(learner, job, Attempt.begin(job), phase=Phase.FINE_TUNE, epochs=epochs, **given)


def _heads_first(learner: NumbersLearner, spec: FinetuneSpec) -> Fitted:
    job = a_job(spec)
    return fit_heads_first(learner, job, Attempt.begin(job))


def _state(learner: NumbersLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_it_learns(optimizer: Optimizer, schedule: Schedule) -> None:
    rate = 3e-2 if optimizer is Optimizer.ADAMW else 0.3
    learner = NumbersLearner()
    fitted = _fit(a_spec(optimizer=optimizer, schedule=schedule, learning_rate=rate), learner, epochs=15)
    assert fitted.best.value > 0.85
    assert fitted.best.value == max(report.score for report in fitted.history)
    assert learner.validate().value == fitted.best.value
    assert fitted.stop_reason is StopReason.EPOCHS


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": Optimizer.SGD},
        {"ema_decay": 0.9},
        {"accumulation_steps": 3},
        {"unfreezing": UnfreezingSpec(head_warmup_epochs=1, epochs_per_stage=2)},
        {"batch_norm": BatchNorm.LEARNED},
        {"find_learning_rate": True},
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(values: dict[str, Any]) -> None:
    spec = a_spec(**values)
    unbroken = NumbersLearner()
    expected = _fit(spec, unbroken, epochs=6)

    def stop_after_three(report: Any) -> None:
        if report.epoch == 4:
            raise StoppedByHandError

    kept = MemoryCheckpoints()
    with pytest.raises(StoppedByHandError):
        _fit(spec, NumbersLearner(), epochs=6, checkpoints=kept, on_epoch=stop_after_three)
    assert kept.all[-1].epoch == 3
    resumed = NumbersLearner()
    result = _fit(spec, resumed, epochs=6, checkpoints=MemoryCheckpoints(kept.all[-1]))
    assert _same(_state(resumed), _state(unbroken))
    assert result.best == expected.best
    plain = [replace(report, images_per_s=0, eta_s=0) for report in result.history]
    assert plain == [replace(report, images_per_s=0, eta_s=0) for report in expected.history]


@pytest.mark.parametrize("values", [{}, {"ema_decay": 0.9}, {"accumulation_steps": 3}])
def test_a_run_goes_on_from_within_an_epoch(values: dict[str, Any]) -> None:
    spec = a_spec(checkpoints=CheckpointSpec(every_s=1e-9), batch_size=8, **values)
    unbroken, kept = NumbersLearner(), MemoryCheckpoints()
    expected = _fit(spec, unbroken, epochs=2, checkpoints=kept)
    steps = 8 if spec.accumulation_steps == 1 else 3
    assert [(one.epoch, one.step) for one in kept.all] == [divmod(at, steps) for at in range(1, 2 * steps + 1)]
    never_saved = NumbersLearner()
    _fit(a_spec(batch_size=8, **values), never_saved, epochs=2)
    assert _same(_state(never_saved), _state(unbroken))
    for checkpoint in kept.all:
        resumed = NumbersLearner()
        result = _fit(spec, resumed, epochs=2, checkpoints=MemoryCheckpoints(checkpoint))
        assert _same(_state(resumed), _state(unbroken))
        plain = [replace(report, images_per_s=0, eta_s=0) for report in result.history]
        assert plain == [replace(report, images_per_s=0, eta_s=0) for report in expected.history]


def test_a_finished_phase_is_not_trained_again() -> None:
    kept = MemoryCheckpoints()
    first, again = NumbersLearner(), NumbersLearner()
    expected = _fit(a_spec(), first, checkpoints=kept)
    result = _fit(a_spec(), again, checkpoints=kept, on_epoch=lambda _: pytest.fail("trained again"))
    assert result.best == expected.best
    assert _same(_state(first), _state(again))


def test_checkpoints_are_tensors_and_json_and_carry_what_was_before() -> None:
    kept = MemoryCheckpoints()
    before = Before(meta={"temperature": 2.0}, tensors={"probe": torch.ones(2)})
    _fit(a_spec(ema_decay=0.9), NumbersLearner(), checkpoints=kept, before=before)
    again = read_before(kept.all[-1])
    assert again.meta == {"temperature": 2.0}
    assert torch.equal(again.tensors["probe"], torch.ones(2))
    assert Attempt.begin(a_job(a_spec(), checkpoints=kept)).budget.spent_s > 0
    assert all(tensor.is_contiguous() for tensor in kept.all[-1].tensors.values())


@pytest.mark.parametrize(
    ("when", "epochs"), [(CheckpointSpec(every_epochs=2), [2, 4, 5]), (CheckpointSpec(every_epochs=0), [])]
)
def test_checkpoints_come_when_asked(when: CheckpointSpec, epochs: list[int]) -> None:
    kept = MemoryCheckpoints()
    _fit(a_spec(checkpoints=when), NumbersLearner(), epochs=5, checkpoints=kept)
    assert [one.epoch for one in kept.all] == epochs
    kept = MemoryCheckpoints()
    _fit(a_spec(checkpoints=CheckpointSpec(every_s=1000)), NumbersLearner(), checkpoints=kept)
    assert [one.epoch for one in kept.all] == [4]


def test_stages_unfreeze_one_after_another() -> None:
    learner = NumbersLearner()
    spec = a_spec(unfreezing=UnfreezingSpec(head_warmup_epochs=1, epochs_per_stage=1), ema_decay=0.0)
    _fit(spec, learner, epochs=3)
    start = NumbersLearner().network.state_dict()
    moved = [
        [name for name in ("first.0.weight", "second.0.weight", "head.weight") if not torch.equal(s[name], start[name])]
        for s in learner.validated
    ]
    assert moved[0] == ["head.weight"]
    assert moved[1] == ["second.0.weight", "head.weight"]
    assert moved[2] == ["first.0.weight", "second.0.weight", "head.weight"]


def test_rates_fall_from_the_head_to_the_input() -> None:
    spec = a_spec(backbone_learning_rate_ratio=0.5, stage_learning_rate_decay=0.1)
    layers = Layers(NumbersLearner(), spec, trains_backbone=True)
    groups = layers.make_optimizer(1.0).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1, 1, 0.5, 0.5, 0.05, 0.05])
    assert [group["weight_decay"] > 0 for group in groups] == [True, False] * 3


@pytest.mark.parametrize(
    ("kind", "moves"), [(BatchNorm.FROZEN, False), (BatchNorm.AUTO, False), (BatchNorm.LEARNED, True)]
)
def test_batch_norm_statistics(kind: BatchNorm, moves: bool) -> None:
    learner = NumbersLearner()
    before = learner.network.first[1].running_mean.clone()
    fitted = _fit(a_spec(batch_norm=kind), learner, epochs=2)
    assert (not torch.equal(before, learner.network.first[1].running_mean)) is moves
    assert fitted.notes["batch_norm"].startswith("learned" if moves else "frozen")


def test_the_head_alone_leaves_the_backbone_as_it_is() -> None:
    learner = NumbersLearner()
    before = _state(learner)
    _fit(a_spec(batch_norm=BatchNorm.LEARNED), learner, trains_backbone=False)
    changed = {name for name, tensor in _state(learner).items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_the_average_is_what_is_validated_and_kept() -> None:
    learner = NumbersLearner()
    fitted = _fit(a_spec(ema_decay=0.99), learner, epochs=3)
    plain = NumbersLearner()
    _fit(a_spec(), plain, epochs=3)
    assert not torch.equal(learner.validated[0]["head.weight"], plain.validated[0]["head.weight"])
    assert _same(_state(learner), learner.validated[fitted.best_epoch - 1])


def test_accumulated_gradients_are_those_of_the_large_batch() -> None:
    whole, parts = NumbersLearner(), NumbersLearner()
    whole.network.second[3].p = parts.network.second[3].p = 0.0
    _fit(a_spec(batch_size=64, optimizer=Optimizer.SGD), whole, epochs=2)
    _fit(a_spec(batch_size=16, accumulation_steps=4, optimizer=Optimizer.SGD), parts, epochs=2)
    torch.testing.assert_close(_state(whole), _state(parts), atol=1e-5, rtol=1e-4)


def test_progress_names_steps_and_the_rate() -> None:
    reports: list[StepReport] = []
    spec = a_spec(batch_size=16, accumulation_steps=3, schedule=Schedule.CONSTANT, warmup_fraction=0.0)
    _fit(spec, NumbersLearner(), epochs=2, on_step=reports.append)
    # Four batches of 64 images: three make a step, and the last one makes one alone.
    ends = [report.steps for report in reports if report.done == report.total]
    assert ends == [Steps(2, 2, spec.learning_rate)] * 2


def test_a_phase_never_ends_below_its_start() -> None:
    learner = NumbersLearner()
    before, start = _state(learner), Score(0.9, 0.1)
    fitted = _fit(a_spec(learning_rate=1e-9), learner, epochs=2, start=start)
    assert fitted.best_epoch == 0
    assert fitted.best == start
    assert _same(_state(learner), before)


def test_divergence_is_an_error_or_keeps_what_was_before() -> None:
    spec = a_spec(learning_rate=100.0, optimizer=Optimizer.SGD, gradient_clip_norm=0.0, batch_norm=BatchNorm.FROZEN)
    with pytest.raises(TrainingDivergedError, match="lower learning rate"):
        _fit(spec, NumbersLearner(), epochs=30)
    said: list[str] = []
    fitted = _fit(spec, NumbersLearner(), epochs=30, start=Score(1.0, 0.0), on_log=said.append)
    assert fitted.best_epoch == 0
    assert "diverged" in said[-1]


def test_reasons_to_stop() -> None:
    assert (
        _fit(a_spec(stop=StopSpec(target_score=0.6)), NumbersLearner(), epochs=50).stop_reason
        is StopReason.TARGET_SCORE
    )
    fitted = _fit(a_spec(stop=StopSpec(max_duration_s=1e-9)), NumbersLearner(), epochs=50)
    assert (fitted.stop_reason, len(fitted.history)) == (StopReason.MAX_DURATION, 1)
    fitted = _fit(
        a_spec(stop=StopSpec(early_stopping_patience=2), learning_rate=1e-9), NumbersLearner(), 50, start=Score(1, 0)
    )
    assert (fitted.stop_reason, len(fitted.history)) == (StopReason.EARLY_STOPPING, 2)
    done = _fit(a_spec(stop=StopSpec(target_score=0.5)), NumbersLearner(), start=Score(0.7, 0.1))
    assert (done.stop_reason, done.history) == (StopReason.TARGET_SCORE, ())


def test_the_learning_rate_that_was_found_trains() -> None:
    said: list[str] = []
    learner = NumbersLearner()
    fitted = _fit(a_spec(find_learning_rate=True, learning_rate=1e-7), learner, epochs=10, on_log=said.append)
    assert 1e-4 < float(fitted.notes["learning_rate"]) < 1
    assert said[0].startswith("learning rate")
    assert fitted.best.value > 0.8


def test_low_precision_trains() -> None:
    job = replace(a_job(a_spec(learning_rate=3e-2)), compute=Compute("cpu", "bfloat16", 1))
    fitted = fit(NumbersLearner(), job, Attempt.begin(job), phase=Phase.FINE_TUNE, epochs=10, trains_backbone=True)
    assert fitted.best.value > 0.8


class SlowLearner(NumbersLearner):
    """Takes 2 ms a batch and 5 ms to validate, and what the machine adds."""

    def loss(self, model: nn.Module, batch: Pair) -> torch.Tensor:
        time.sleep(0.002)
        return super().loss(model, batch)

    def validate(self) -> Score:
        time.sleep(0.005)
        return super().validate()


def test_the_time_left_counts_the_phases_to_come() -> None:
    told: list[tuple[float, float]] = []

    def ahead(train_s: float, validate_s: float) -> float:
        told.append((train_s, validate_s))
        return 1000.0

    *_, before_last, last = _fit(a_spec(), SlowLearner(), ahead=ahead).history
    assert last.eta_s == 1000
    assert before_last.eta_s > 1000 + 4 * 0.002 + 0.005
    assert all(train_s >= 4 * 0.002 and validate_s >= 0.005 for train_s, validate_s in told)
    assert _fit(a_spec(), SlowLearner()).history[-1].eta_s == 0


def test_the_time_left_ends_with_the_budget() -> None:
    fitted = _fit(a_spec(stop=StopSpec(max_duration_s=600)), NumbersLearner(), ahead=lambda *_: 1000.0)
    assert all(0 < report.eta_s < 600 for report in fitted.history)


def test_while_heads_train_the_time_left_counts_tuning() -> None:
    epochs, batches = 3, 4
    heads, tuning = [], []
    fitted = _heads_first(SlowLearner(), a_spec(epochs=epochs))
    for report in fitted.history:
        (heads if report.phase is Phase.TRAIN else tuning).append(report.eta_s)
    # A tuned step is taken for dearer than one of the heads: two epochs of them and three of tuning are to come.
    assert heads[0] > (2 * epochs - 1) * (batches * 0.002 + 0.005)
    assert heads[-1] > epochs * (1.5 * batches * 0.002 + 0.005)
    assert tuning[-1] == 0
    alone = _heads_first(SlowLearner(), a_spec(epochs=epochs, strategy=Strategy.FEATURE_EXTRACTION))
    assert alone.history[-1].eta_s == 0
