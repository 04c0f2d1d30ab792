"""Pausing, resuming and cancelling while the service dies at every place where it can."""

import contextlib
import itertools

import pytest

from enxerto.training.domain import (
    CheckpointSaved,
    EpochCompleted,
    JobStarted,
    JobTrained,
    Metric,
    Progress,
    RunState,
)
from enxerto.training.errors import RunFinishedError
from enxerto.training.ports import JobState
from fakes.training_mortals import Killed, Mortal
from fakes.training_values import a_result
from training_world import a_world, finish

PAUSE = [RunState.QUEUED, RunState.RUNNING, RunState.PAUSING, RunState.PAUSED]
RESUMED = [RunState.QUEUED, RunState.RUNNING, RunState.REGISTERING, RunState.SUCCEEDED]
CHECKPOINT = CheckpointSaved("fine-tuning", 1, 4096)
deaths = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


def epoch(number):
    progress = Progress("fine-tuning", number, 2, 8, 8, 100.0, 0.0)
    return EpochCompleted(progress, (Metric("loss", 0.5, "train"),), 1e-3)


@pytest.fixture
async def world():
    world = await a_world()
    reconciler = world.reconciler()
    await reconciler.step()
    world.cluster.write(await world.run(), JobStarted(), epoch(1), CHECKPOINT)
    await reconciler.step()
    assert (await world.run()).checkpoint is not None
    return world


def mortal(world, calls, after):
    """A reconciler that dies before or after its n-th call of anything outside."""
    lives = itertools.count(calls, -1)
    owners = {"runs": "runs", "jobs": "cluster", "output": "cluster", "registry": "registry"}
    return world.reconciler(
        **{part: Mortal(getattr(world, owner), lives, after=after) for part, owner in owners.items()}
    )


async def drive_to(world, state, calls, after):
    """Drive with a reconciler that dies once; whoever comes after it finds what is stored."""
    reconciler = mortal(world, calls, after)
    for _ in range(40):
        if (await world.run()).state is state:
            return
        try:
            await reconciler.step()
        except Killed:
            reconciler = world.reconciler()
    raise AssertionError(f"the run does not become {state}")


@deaths
@pytest.mark.parametrize("calls", range(12))
async def test_a_pause_ends_paused_with_its_checkpoint(world, calls, after):
    await world.cases.pause(world.name)
    # The job's last words come while it is being stopped.
    world.cluster.write(await world.run(), epoch(2), CheckpointSaved("fine-tuning", 2, 5000))
    await drive_to(world, RunState.PAUSED, calls, after)
    run = await world.run()
    assert (run.attempt, run.losses, run.checkpoint.epoch) == (1, 0, 2)
    assert world.cluster.jobs == {"u1-1": JobState.STOPPED}
    assert await world.states() == PAUSE
    epochs = [body.progress.epoch for body in await world.events() if isinstance(body, EpochCompleted)]
    assert epochs == [1, 2]


@deaths
@pytest.mark.parametrize("calls", range(20))
async def test_a_resumed_run_gets_one_job_and_ends_well(world, calls, after):
    await world.cases.pause(world.name)
    await drive_to(world, RunState.PAUSED, 99, after)
    await world.cases.resume(world.name)
    world.cluster.results["u1", 2] = a_result()
    reconciler, told = mortal(world, calls, after), False
    for _ in range(40):
        run = await world.run()
        if run.state is RunState.SUCCEEDED:
            break
        if run.submitted and not told:
            told = True
            world.cluster.write(run, JobStarted(), epoch(2), JobTrained())
        try:
            await reconciler.step()
        except Killed:
            reconciler = world.reconciler()
    run = await world.run()
    assert (run.state, run.attempt, run.losses) == (RunState.SUCCEEDED, 2, 0)
    assert set(world.cluster.submissions) == {"u1-1", "u1-2"}
    assert world.cluster.stopped == ["u1-1"]
    assert len(world.registry.versions) == 1
    assert await world.states() == PAUSE + RESUMED
    epochs = [body.progress.epoch for body in await world.events() if isinstance(body, EpochCompleted)]
    assert epochs == [1, 2]


@deaths
@pytest.mark.parametrize("calls", range(12))
async def test_a_cancelled_run_leaves_no_job(world, calls, after):
    await world.cases.cancel(world.name, "CANCELLED")
    await drive_to(world, RunState.CANCELLED, calls, after)
    run = await world.run()
    assert world.cluster.jobs == {"u1-1": JobState.STOPPED}
    assert world.cluster.submissions == ["u1-1"]
    assert (run.stop_reason, run.end_time is not None) == ("CANCELLED", True)
    assert await world.states() == [RunState.QUEUED, RunState.RUNNING, RunState.CANCELLING, RunState.CANCELLED]


@deaths
@pytest.mark.parametrize("stop", ["pause", "cancel"])
@pytest.mark.parametrize("calls", range(8))
async def test_a_run_that_is_stopped_while_it_is_submitted_leaves_no_job(calls, stop, after):
    world = await a_world()
    with contextlib.suppress(Killed):
        # With more lives than the step has calls, the job is there already.
        await mortal(world, calls, after).step()
    await getattr(world.cases, stop)(world.name)
    wanted = {"pause": RunState.PAUSED, "cancel": RunState.CANCELLED}[stop]
    await drive_to(world, wanted, 99, after)
    run = await world.run()
    assert run.losses == 0
    assert len(world.cluster.submissions) <= 1
    assert all(state is JobState.STOPPED for state in world.cluster.jobs.values())
    for _ in range(3):
        await world.reconciler().step()
    assert (await world.run()).state is wanted
    assert len(world.cluster.submissions) <= 1


async def test_a_paused_run_is_found_by_the_next_service_and_can_be_cancelled(world):
    await world.cases.pause(world.name)
    await drive_to(world, RunState.PAUSED, 99, after=False)
    await world.cases.cancel(world.name)
    for _ in range(3):
        await world.reconciler().step()
    assert (await world.run()).state is RunState.CANCELLED
    assert world.cluster.submissions == ["u1-1"]


async def test_a_cancellation_that_meets_the_registration_loses_no_version(world):
    class Meeting:
        """A registry whose caller is cancelled after it has the version."""

        async def register(self, run, result):
            registered = await world.registry.register(run, result)
            with pytest.raises(RunFinishedError, match="REGISTERING"):
                await world.cases.cancel(world.name)
            return registered

    world.cluster.results["u1", 1] = a_result()
    world.cluster.write(await world.run(), epoch(2), JobTrained())
    await finish(world, world.reconciler(registry=Meeting()))
    run = await world.run()
    assert (run.state, run.model_version) == (RunState.SUCCEEDED, world.registry.versions["u1"])
