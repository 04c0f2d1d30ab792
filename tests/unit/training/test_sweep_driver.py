"""Sweeps on the scripted cluster: trials, pruning, failures, cancellation, restarts."""

import pytest
from google.rpc.status_pb2 import Status

from enxerto.kernel.names import ProjectName, SweepName
from enxerto.training.adapters.optuna_search import OptunaSearch
from enxerto.training.adapters.status import encode_status
from enxerto.training.converters import trial_spec
from enxerto.training.domain import (
    TUNING,
    Choice,
    EpochCompleted,
    JobFailed,
    JobStarted,
    JobTrained,
    Metric,
    NumberRange,
    Progress,
    RunState,
    SweepParameter,
    SweepPlan,
    SweepState,
)
from enxerto.training.errors import ModelTaskMismatchError, SweepFinishedError
from enxerto.training.service import Signals, SweepDriver, Sweeps
from enxerto.training.v1 import training_run_pb2
from enxerto.vision.specs import Task
from fakes.training_stores import InMemorySweepStore, SteppingClock
from fakes.training_values import a_result, a_run
from training_world import a_world

NAME = SweepName("default", "better")


def a_plan(**changed):
    spec = a_run().spec
    template = training_run_pb2.TrainingSpec(
        snapshot=str(spec.snapshot), base_model=str(spec.base_model), model=str(spec.model)
    )
    parts = {
        "template": template.SerializeToString(),
        "spec": spec,
        "parameters": (
            SweepParameter("learning_rate", NumberRange(1e-4, 1e-1, log=True, whole=False)),
            SweepParameter("optimizer", Choice(("OPTIMIZER_ADAMW", "OPTIMIZER_SGD"))),
            SweepParameter("epochs", NumberRange(2, 5, log=False, whole=True)),
        ),
        "max_trials": 3,
        "max_parallel_trials": 2,
    }
    return SweepPlan(**{**parts, **changed})


class Laboratory:
    def __init__(self, world):
        self.world, self.store = world, InMemorySweepStore()
        self.sweeps = Sweeps(self.store, world.datasets, world.registry, Signals(), SteppingClock())
        self.reconciler = world.reconciler()
        self.restart()

    def restart(self):
        self.driver = SweepDriver(
            sweeps=self.store,
            store=self.world.runs,
            runs=self.world.cases,
            searches=OptunaSearch,
            trial_specs=trial_spec,
            encode=encode_status,
            signals=Signals(),
            clock=SteppingClock(),
        )

    async def create(self, **plan):
        return await self.sweeps.create(ProjectName("default"), "better", a_plan(**plan), {"team": "optics"}, None)

    async def step(self, times=1):
        for _ in range(times):
            await self.driver.step()
            await self.reconciler.step()
        return await self.store.get(NAME)

    async def play(self, trial, *scores, heads=(), ends=True, of=0):
        """A job that reports the scores of epochs, out of as many unless `of` says out of how many."""
        run = await self.world.runs.get(trial.run)
        phases = [("head", heads), (TUNING, scores)] if run.spec.finetune.tunes else [("head", scores)]
        bodies = [JobStarted()]
        for phase, reached in phases:
            for epoch, score in enumerate(reached, start=1):
                metrics = (Metric("accuracy", score, "val"), Metric("accuracy", 0.0, "train"))
                bodies.append(EpochCompleted(Progress(phase, epoch, of or len(reached)), metrics, 1e-3))
        self.world.cluster.results[run.uid, run.attempt] = a_result()
        self.world.cluster.write(run, *bodies, *([JobTrained()] if ends else []))


@pytest.fixture
async def laboratory():
    return Laboratory(await a_world())


async def test_trials_run_in_parallel_and_the_best_is_linked(laboratory):
    await laboratory.create()
    sweep = await laboratory.step(2)
    assert [one.state for one in sweep.trials] == [RunState.QUEUED] * 2
    run = await laboratory.world.runs.get(sweep.trials[0].run)
    assert (run.sweep, run.labels) == (NAME, {"team": "optics", "sweep": "better"})
    assert run.spec.finetune.learning_rate == float(sweep.trials[0].parameters["learning_rate"])
    await laboratory.play(sweep.trials[0], 0.2, 0.6, 0.5)
    await laboratory.play(sweep.trials[1], 0.3, 0.4)
    sweep = await laboratory.step(5)
    assert len(sweep.trials) == 3
    assert [one.score for one in sweep.trials[:2]] == [0.6, 0.4]
    await laboratory.play(sweep.trials[2], 0.5)
    sweep = await laboratory.step(5)
    assert (sweep.state, sweep.best.number, sweep.best.score) == (SweepState.SUCCEEDED, 1, 0.6)
    assert sweep.end_time is not None
    assert await laboratory.sweeps.get(NAME) == sweep
    with pytest.raises(SweepFinishedError):
        await laboratory.sweeps.cancel(NAME)


async def test_a_restart_at_any_step_makes_no_trial_twice(laboratory):
    await laboratory.create(max_parallel_trials=1)
    seen = []
    for _ in range(24):
        laboratory.restart()
        sweep = await laboratory.step()
        for trial in sweep.open_trials:
            run = await laboratory.world.runs.get(trial.run)
            if run.submitted and trial.number not in seen:
                seen.append(trial.number)
                await laboratory.play(trial, 0.1 * trial.number)
    assert seen == [1, 2, 3]
    assert (sweep.state, sweep.best.number) == (SweepState.SUCCEEDED, 3)
    assert len({tuple(sorted(one.parameters.items())) for one in sweep.trials}) == 3


async def test_a_trial_that_does_worse_is_pruned_and_the_sweep_goes_on(laboratory):
    await laboratory.create(max_trials=5, max_parallel_trials=1, pruning_grace_epochs=1)
    for number in range(1, 5):
        sweep = await laboratory.step(2)
        await laboratory.play(sweep.trials[-1], *[0.9 - number / 100] * 2)
        sweep = await laboratory.step(4)
    await laboratory.play(sweep.trials[-1], 0.01, 0.01, ends=False, of=5)
    for _ in range(6):
        sweep = await laboratory.step()
    last = sweep.trials[-1]
    assert (last.number, last.state, last.pruned) == (5, RunState.CANCELLED, True)
    assert (await laboratory.world.runs.get(last.run)).stop_reason == "PRUNED"
    assert (sweep.state, sweep.best.number) == (SweepState.SUCCEEDED, 1)


@pytest.mark.parametrize("ends", [True, False], ids=["registering", "evaluating"])
async def test_trials_whose_epochs_are_all_over_are_not_pruned(laboratory, ends):
    await laboratory.create(max_trials=8, max_parallel_trials=8, pruning_grace_epochs=1)
    sweep = await laboratory.step(2)
    for trial in sweep.trials:
        await laboratory.play(trial, *[0.9 - trial.number / 10] * 2, ends=ends)
    # What the jobs have written comes in one tick; the scores are looked at afterwards.
    await laboratory.reconciler.step()
    await laboratory.driver.step()
    for trial in sweep.trials:
        run = await laboratory.world.runs.get(trial.run)
        assert run.state is (RunState.REGISTERING if ends else RunState.RUNNING)
        if not ends:
            laboratory.world.cluster.write(run, Progress("evaluating"), JobTrained())
    sweep = await laboratory.step(4)
    assert [(one.state, one.pruned) for one in sweep.trials] == [(RunState.SUCCEEDED, False)] * 8
    assert (sweep.state, sweep.best.number) == (SweepState.SUCCEEDED, 1)
    assert len(laboratory.world.registry.versions) == 8


async def test_a_trial_that_stopped_early_and_is_evaluated_is_not_pruned(laboratory):
    await laboratory.create(max_trials=4, max_parallel_trials=4, pruning_grace_epochs=1)
    sweep = await laboratory.step(2)
    for trial in sweep.trials:
        await laboratory.play(trial, *[0.9 - trial.number / 10] * 2, ends=False, of=30)
        laboratory.world.cluster.write(await laboratory.world.runs.get(trial.run), Progress("evaluating"))
    await laboratory.reconciler.step()
    await laboratory.driver.step()
    for trial in sweep.trials:
        laboratory.world.cluster.write(await laboratory.world.runs.get(trial.run), JobTrained())
    sweep = await laboratory.step(4)
    assert [one.state for one in sweep.trials] == [RunState.SUCCEEDED] * 4


async def test_trials_of_two_phases_are_compared_by_their_epochs_of_tuning(laboratory):
    fine_tune = SweepParameter("strategy", Choice(("STRATEGY_FINE_TUNE",)))
    plan = {"parameters": (*a_plan().parameters, fine_tune), "pruning_grace_epochs": 2}
    await laboratory.create(max_trials=5, max_parallel_trials=1, **plan)
    for number in range(1, 5):
        sweep = await laboratory.step(2)
        # However long the heads learned, and however well: that is not what is compared.
        await laboratory.play(sweep.trials[-1], *[0.6 + number / 100] * 2, heads=[0.1] * number)
        sweep = await laboratory.step(4)
        assert not sweep.trials[-1].pruned
    await laboratory.play(sweep.trials[-1], 0.01, heads=[0.5] * 9, ends=False)
    sweep = await laboratory.step(3)
    assert (sweep.trials[-1].state, sweep.trials[-1].score) == (RunState.RUNNING, 0.5)
    await laboratory.play(sweep.trials[-1], 0.01, 0.01, heads=[0.5] * 9, ends=False, of=9)
    sweep = await laboratory.step(6)
    assert (sweep.trials[-1].number, sweep.trials[-1].pruned) == (5, True)
    assert (sweep.state, sweep.best.number) == (SweepState.SUCCEEDED, 4)


async def test_a_failed_trial_is_borne_and_only_failures_fail_the_sweep(laboratory):
    await laboratory.create(max_trials=2, max_parallel_trials=1)
    for _ in range(2):
        sweep = await laboratory.step(2)
        run = await laboratory.world.runs.get(sweep.trials[-1].run)
        laboratory.world.cluster.write(run, JobStarted(), JobFailed(b"\x08\x0d"))
        await laboratory.step(3)
    sweep = await laboratory.step(2)
    assert [one.state for one in sweep.trials] == [RunState.FAILED] * 2
    assert sweep.state is SweepState.FAILED
    assert "none of 2 trials" in Status.FromString(sweep.error).message


async def test_values_that_do_not_go_together_fail_their_trial_alone(laboratory):
    mixes = (SweepParameter("augmentation.mixup_alpha", Choice(("0.5",))),)
    await laboratory.create(parameters=mixes, max_trials=2)
    sweep = await laboratory.step(4)
    assert [one.state for one in sweep.trials] == [RunState.FAILED] * 2
    assert sweep.state is SweepState.FAILED


async def test_a_sweep_for_a_model_of_another_task_is_refused(laboratory):
    laboratory.world.registry.tasks[a_plan().spec.model] = Task.DETECTION
    with pytest.raises(ModelTaskMismatchError):
        await laboratory.create()
    assert not await laboratory.store.list_active()


async def test_cancelling_a_sweep_cancels_its_trials(laboratory):
    await laboratory.create()
    sweep = await laboratory.step(2)
    await laboratory.play(sweep.trials[0], 0.2, ends=False)
    await laboratory.step(2)
    assert (await laboratory.sweeps.cancel(NAME)).state is SweepState.CANCELLING
    sweep = await laboratory.step(6)
    assert sweep.state is SweepState.CANCELLED
    assert [one.state for one in sweep.trials] == [RunState.CANCELLED] * 2
    assert (await laboratory.sweeps.cancel(NAME)).revision == sweep.revision


async def test_a_cancelled_sweep_waits_for_the_trial_that_is_being_registered(laboratory):
    await laboratory.create()
    sweep = await laboratory.step(2)
    await laboratory.play(sweep.trials[0], 0.2)
    await laboratory.reconciler.step()
    await laboratory.sweeps.cancel(NAME)
    await laboratory.driver.step()
    assert (await laboratory.store.get(NAME)).trials[0].state is RunState.REGISTERING
    sweep = await laboratory.step(6)
    assert sweep.state is SweepState.CANCELLED
    assert [one.state for one in sweep.trials] == [RunState.SUCCEEDED, RunState.CANCELLED]
