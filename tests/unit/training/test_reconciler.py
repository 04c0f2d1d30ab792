import itertools
from dataclasses import replace

import pytest
from google.rpc.status_pb2 import Status

from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.error_table import to_status
from enxerto.training.converters import run_to_proto
from enxerto.training.domain import (
    EpochCompleted,
    Finding,
    JobFailed,
    JobStarted,
    JobTrained,
    LogLine,
    Metric,
    PathSource,
    Progress,
    RunState,
    StateChanged,
)
from enxerto.training.ports import JobState
from fakes.training_mortals import Killed, Mortal
from fakes.training_stores import (
    START,
    InMemoryRegistry,
    ScriptedCluster,
)
from fakes.training_values import a_result, a_run, some_content
from training_world import a_world, finish

EPOCH = EpochCompleted(Progress("head", 1, 1, 8, 8, 100.0, 0.0), (Metric("loss", 0.5, "train"),), 1e-3)


@pytest.fixture
async def world():
    return await a_world()


async def test_a_run_is_driven_to_its_end_and_every_event_is_kept(world):
    reconciler = world.reconciler()
    await reconciler.step()
    run = await world.run()
    assert (run.state, run.submitted, world.cluster.submissions) == (RunState.QUEUED, True, ["u1-1"])
    world.cluster.write(run, JobStarted(), Progress("preparing"), EPOCH)
    await reconciler.step()
    run = await world.run()
    assert (run.state, run.progress, world.telemetry.images) == (RunState.RUNNING, EPOCH.progress, 8)
    world.cluster.results["u1", 1] = a_result()
    world.cluster.write(run, LogLine("INFO", "done"), JobTrained())
    await finish(world, reconciler)
    run = await world.run()
    assert run.model_version == "projects/default/models/digits/versions/1"
    assert (run.metrics, run.stop_reason) == (a_result().metrics, "EPOCHS")
    assert await world.states() == [
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.REGISTERING,
        RunState.SUCCEEDED,
    ]
    kept = [body for body in await world.events() if not isinstance(body, StateChanged)]
    assert kept[1:] == [Progress("preparing"), EPOCH, LogLine("INFO", "done")]
    assert world.telemetry.ended == [RunState.SUCCEEDED]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", range(24))
async def test_a_crash_at_any_call_changes_nothing_of_the_outcome(world, calls, after):
    world.cluster.results["u1", 1] = a_result()
    script = iter([(JobStarted(), EPOCH), (EPOCH, LogLine("INFO", "x")), (JobTrained(),)])
    lives = itertools.count(calls, -1)
    reconciler = world.reconciler(
        **{
            part: Mortal(getattr(world, owner), lives, after=after)
            for part, owner in (
                ("runs", "runs"),
                ("jobs", "cluster"),
                ("output", "cluster"),
                ("registry", "registry"),
            )
        }
    )
    for _ in range(40):
        try:
            if await reconciler.step() == 0:
                break
        except Killed:
            reconciler = world.reconciler()
        run = await world.run()
        if run.submitted and (bodies := next(script, None)):
            world.cluster.write(run, *bodies)
    run = await world.run()
    assert run.state is RunState.SUCCEEDED
    assert set(world.cluster.submissions) == {"u1-1"}
    assert len(world.registry.versions) == 1
    assert await world.states() == [RunState.QUEUED, RunState.RUNNING, RunState.REGISTERING, RunState.SUCCEEDED]
    assert [body for body in await world.events() if isinstance(body, EpochCompleted)] == [EPOCH, EPOCH]


async def test_a_lost_job_is_repeated_three_times_and_then_the_run_fails(world):
    reconciler = world.reconciler()
    for _ in range(8):
        await reconciler.step()
        world.cluster.jobs = dict.fromkeys(world.cluster.jobs, JobState.FAILED)
    run = await world.run()
    assert world.cluster.submissions == ["u1-1", "u1-2", "u1-3"]
    assert run.state is RunState.FAILED
    assert "3 times" in Status.FromString(run.error).message
    # It was started three times, the first of them being no restart.
    assert run_to_proto(run).restart_count == 2
    warnings = [body for body in await world.events() if isinstance(body, LogLine) and body.severity == "WARNING"]
    assert len(warnings) == 2


async def test_a_job_that_the_cluster_forgot_is_submitted_again(world):
    reconciler = world.reconciler()
    await reconciler.step()
    world.cluster.jobs.clear()
    await finish_with(world, reconciler, attempt=2)
    assert world.cluster.submissions == ["u1-1", "u1-2"]


async def finish_with(world, reconciler, attempt):
    for _ in range(3):
        await reconciler.step()
    run = await world.run()
    assert run.attempt == attempt
    world.cluster.results["u1", attempt] = a_result()
    world.cluster.write(run, JobStarted(), JobTrained())
    await finish(world, reconciler)
    assert (await world.run()).state is RunState.SUCCEEDED


async def test_a_cluster_that_is_away_is_waited_for(world):
    class Away(ScriptedCluster):
        async def submit(self, run, content, weights, warnings):
            raise UnavailableError("nobody there")

    reconciler = world.reconciler(jobs=Away())
    for _ in range(30):
        await reconciler.step()
    assert (await world.run()).state is RunState.QUEUED
    await finish_with(world, world.reconciler(), attempt=1)


async def test_who_watches_a_run_is_told_once_what_it_waits_for(world):
    class Away(InMemoryRegistry):
        async def register(self, run, result):
            raise UnavailableError("the registry cannot take the version now: INTERNAL: no space left")

    reconciler = world.reconciler(registry=Away())
    await reconciler.step()
    world.cluster.results["u1", 1] = a_result()
    world.cluster.write(await world.run(), JobStarted(), JobTrained())
    for _ in range(5):
        await reconciler.step()
    assert (await world.run()).state is RunState.REGISTERING
    told = [body.message for body in await world.events() if isinstance(body, LogLine) and body.severity == "WARNING"]
    assert told == ["waits, and tries again: the registry cannot take the version now: INTERNAL: no space left"]
    await finish(world, world.reconciler())
    assert (await world.run()).state is RunState.SUCCEEDED


async def test_a_job_that_gave_up_tells_why(world):
    status = to_status(UnavailableError("no weights")).SerializeToString()
    reconciler = world.reconciler()
    await reconciler.step()
    world.cluster.write(await world.run(), JobStarted(), JobFailed(status))
    await finish(world, reconciler)
    run = await world.run()
    assert (run.state, run.error) == (RunState.FAILED, status)
    assert (await world.events())[-1] == StateChanged(RunState.FAILED, status)


async def test_an_export_that_disagrees_fails_the_run_and_names_the_quarantined_version(world):
    reconciler = world.reconciler()
    await reconciler.step()
    world.cluster.results["u1", 1] = a_result(agreement=0.9)
    world.cluster.write(await world.run(), JobStarted(), JobTrained())
    await finish(world, reconciler)
    run = await world.run()
    assert (run.state, run.model_version) == (RunState.FAILED, "projects/default/models/digits/versions/1")
    assert "quarantined" in Status.FromString(run.error).message


async def test_a_result_that_is_missing_fails_the_run(world):
    reconciler = world.reconciler()
    await reconciler.step()
    world.cluster.write(await world.run(), JobStarted(), JobTrained())
    await finish(world, reconciler)
    assert (await world.run()).state is RunState.FAILED


async def test_cancelling_stops_the_job_before_the_run_is_cancelled(world):
    reconciler = world.reconciler()
    await reconciler.step()
    run = await world.run()
    cancelling = run.cancel(now=START)
    await world.runs.save(cancelling, [(START, cancelling.state_event())])
    await finish(world, reconciler)
    assert (await world.run()).state is RunState.CANCELLED
    assert world.cluster.stopped == ["u1-1"]
    assert await world.states() == [RunState.QUEUED, RunState.CANCELLING, RunState.CANCELLED]


async def test_what_the_import_warned_of_shows_in_the_run_and_reaches_its_report(world):
    dataset = a_run().spec.snapshot.parent
    snapshot = await world.datasets.create_snapshot(dataset, PathSource("/data"), 0, START)
    findings = tuple(Finding(False, f"{number}.png", "SPLIT_LEAK", "is in two splits", 7) for number in range(30))
    await world.datasets.save_snapshot(snapshot.ready(some_content(), findings, now=START))
    run = a_run("run-b", "u2")
    await world.runs.create(replace(run, spec=replace(run.spec, snapshot=snapshot.name)))
    reconciler = world.reconciler()
    await reconciler.step()
    warnings = world.cluster.warnings["u2-1"]
    assert warnings[0] == "0.png:7: is in two splits [SPLIT_LEAK]"
    assert warnings[-1] == "and 10 more, which the snapshot has"
    events = [event.body for event in await world.runs.list_events("u2", 0, 100)]
    told = [body.message for body in events if isinstance(body, LogLine) and body.severity == "WARNING"]
    assert told == [f"data: {warning}" for warning in warnings]


async def test_one_broken_run_does_not_hold_up_another(world):
    await world.runs.create(a_run("run-b", "u2"))

    class Picky(ScriptedCluster):
        async def submit(self, run, content, weights, warnings):
            if run.uid == "u1":
                raise ZeroDivisionError
            await super().submit(run, content, weights, warnings)

    cluster = Picky()
    reconciler = world.reconciler(jobs=cluster, output=cluster)
    for _ in range(25):
        await reconciler.step()
    assert cluster.submissions == ["u2-1"]
    run = await world.run()
    assert run.state is RunState.FAILED
    assert "log tells why" in Status.FromString(run.error).message
