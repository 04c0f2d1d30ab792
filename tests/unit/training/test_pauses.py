"""Pausing and resuming, over every race with the cluster."""

import pytest

from enxerto.training.domain import (
    Checkpoint,
    CheckpointSaved,
    JobFailed,
    JobStarted,
    JobTrained,
    RunState,
)
from enxerto.training.errors import RunFinishedError
from enxerto.training.ports import JobState
from fakes.training_stores import START
from fakes.training_values import a_result, a_run
from training_world import a_world, finish


@pytest.fixture
async def world():
    return await a_world()


def test_a_run_that_has_no_job_is_paused_at_once_and_goes_on_where_it_was():
    paused = a_run().pause(now=START)
    assert paused.state is RunState.PAUSED
    assert paused.pause(now=START) is paused
    again = paused.resume(now=START)
    assert again.state is RunState.QUEUED
    assert again.resume(now=START) is again


def test_a_paused_run_can_be_cancelled_and_a_pausing_one_not_resumed():
    pausing = a_run().attempt_next(now=START).pause(now=START)
    assert pausing.state is RunState.PAUSING
    with pytest.raises(RunFinishedError, match="PAUSING"):
        pausing.resume(now=START)
    assert pausing.cancel(now=START).state is RunState.CANCELLING
    assert pausing.paused(now=START).cancel(now=START).state is RunState.CANCELLED


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_what_has_ended_is_neither_paused_nor_resumed(action):
    ended = a_run().cancel(now=START)
    with pytest.raises(RunFinishedError, match="CANCELLED"):
        getattr(ended, action)(now=START)


async def running(world, reconciler):
    await reconciler.step()
    run = await world.run()
    world.cluster.write(run, JobStarted(), CheckpointSaved("fine-tuning", 2, 4096))
    await reconciler.step()
    return await world.run()


async def test_a_pause_keeps_the_checkpoint_and_a_resumed_run_gets_a_new_job(world):
    reconciler = world.reconciler()
    run = await running(world, reconciler)
    assert run.checkpoint == Checkpoint("fine-tuning", 2, 4096, START)
    await world.cases.pause(world.name)
    for _ in range(3):
        await reconciler.step()
    run = await world.run()
    assert (run.state, world.cluster.stopped, run.losses) == (RunState.PAUSED, ["u1-1"], 0)
    assert (await world.cases.resume(world.name)).state is RunState.QUEUED
    await reconciler.step()
    run = await world.run()
    assert world.cluster.submissions == ["u1-1", "u1-2"]
    world.cluster.results["u1", 2] = a_result()
    world.cluster.write(run, JobStarted(), JobTrained())
    await finish(world, reconciler)
    run = await world.run()
    assert (run.state, run.losses, run.checkpoint.epoch) == (RunState.SUCCEEDED, 0, 2)
    assert await world.states() == [
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.PAUSING,
        RunState.PAUSED,
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.REGISTERING,
        RunState.SUCCEEDED,
    ]


async def test_last_words_of_a_job_that_is_being_paused_are_read(world):
    reconciler = world.reconciler()
    run = await running(world, reconciler)
    await world.cases.pause(world.name)
    world.cluster.write(run, CheckpointSaved("fine-tuning", 3, 5000), JobFailed(b"\x08\x0d"))
    for _ in range(3):
        await reconciler.step()
    run = await world.run()
    assert (run.state, run.checkpoint.epoch, run.error) == (RunState.PAUSED, 3, None)


async def test_a_run_that_has_just_ended_when_it_is_paused_is_registered(world):
    reconciler = world.reconciler()
    run = await running(world, reconciler)
    await world.cases.pause(world.name)
    world.cluster.results["u1", 1] = a_result()
    world.cluster.write(run, JobTrained())
    world.cluster.jobs["u1-1"] = JobState.SUCCEEDED
    await finish(world, reconciler)
    assert (await world.run()).state is RunState.SUCCEEDED


async def test_a_pause_survives_the_service(world):
    await running(world, world.reconciler())
    await world.cases.pause(world.name)
    await world.reconciler().step()
    await world.reconciler().step()
    assert (await world.run()).state is RunState.PAUSED
    # A paused run costs no looking.
    assert await world.reconciler().step() == 0


async def test_pauses_do_not_count_as_losses(world):
    reconciler = world.reconciler()
    for attempt in range(1, 6):
        await reconciler.step()
        await world.cases.pause(world.name)
        await reconciler.step()
        await reconciler.step()
        run = await world.run()
        assert (run.state, run.attempt, run.losses) == (RunState.PAUSED, attempt, 0)
        await world.cases.resume(world.name)
