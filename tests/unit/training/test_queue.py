"""Who may start, and what the others are told."""

from dataclasses import replace
from datetime import timedelta

from enxerto.kernel.names import RunName
from enxerto.training.domain import ClusterSize, JobStarted, LogLine, Machine, QueueRules, RunState, WaitReason, plan
from enxerto.training.ports import JobState
from fakes.training_stores import START, SteppingClock
from fakes.training_values import a_run
from training_world import a_world


def waiting(uid, project="default", workers=1):
    run = a_run(uid, uid)
    return replace(run, name=RunName(project, uid), spec=replace(run.spec, num_workers=workers))


def training(uid, **more):
    return waiting(uid, **more).attempt_next(now=START).accepted(now=START).start(now=START)


def reasons(found):
    return {uid: (one.position, one.reason) for uid, one in found.waiting.items()}


def test_runs_start_in_the_order_in_which_they_came_as_far_as_the_cluster_goes():
    runs = [training("a"), waiting("b"), waiting("c"), waiting("d")]
    found = plan(runs, ClusterSize(2, 0), QueueRules())
    assert found.admitted == {"b"}
    assert reasons(found) == {"c": (1, WaitReason.CLUSTER_FULL), "d": (2, WaitReason.EARLIER_RUNS)}
    assert "needs 1 CPUs and 0 of 2 are free" in found.waiting["c"].message


def test_a_small_run_does_not_pass_a_large_one():
    found = plan([training("a"), waiting("b", workers=2), waiting("c")], ClusterSize(2, 0), QueueRules())
    assert found.admitted == frozenset()
    assert reasons(found) == {"b": (1, WaitReason.CLUSTER_FULL), "c": (2, WaitReason.EARLIER_RUNS)}


def test_a_run_that_never_fits_waits_and_holds_up_nobody():
    found = plan([waiting("a", workers=8), waiting("b")], ClusterSize(2, 0), QueueRules())
    assert found.admitted == {"b"}
    assert "the whole cluster has 2" in found.waiting["a"].message


def test_a_project_at_its_quota_leaves_room_for_others():
    runs = [training("a"), waiting("b"), waiting("c", project="other")]
    found = plan(runs, ClusterSize(8, 0), QueueRules(runs_per_project=1))
    assert found.admitted == {"c"}
    assert reasons(found) == {"b": (1, WaitReason.PROJECT_QUOTA)}


def test_gpus_are_counted_where_there_are_enough_for_every_worker():
    runs = [training("a", workers=2), waiting("b", workers=1)]
    found = plan(runs, ClusterSize(64, 2), QueueRules())
    assert reasons(found) == {"b": (1, WaitReason.CLUSTER_FULL)}
    assert "GPUs" in found.waiting["b"].message
    assert plan(runs, ClusterSize(64, 0), QueueRules()).admitted == {"b"}


def test_a_run_holds_the_gpus_that_it_was_started_with_however_the_cluster_changes():
    on_cpus, on_gpus = (waiting(uid).attempt_next(now=START, use_gpu=uid == "g") for uid in ("c", "g"))
    assert plan([on_cpus, waiting("b")], ClusterSize(64, 1), QueueRules()).admitted == {"b"}
    assert plan([on_gpus, waiting("b")], ClusterSize(64, 1), QueueRules()).admitted == frozenset()


def test_a_run_that_no_machine_can_hold_waits_and_holds_up_nobody():
    small = ClusterSize(8, 0, machines=(Machine(2),) * 4)
    found = plan([waiting("a")], small, QueueRules(cpus_per_worker=4))
    assert reasons(found) == {"a": (1, WaitReason.CLUSTER_FULL)}
    text = "needs 1 workers of 4 CPUs, and the cluster's machines have room for 0: waits until it grows"
    assert found.waiting["a"].message == text
    mixed = ClusterSize(10, 0, machines=(Machine(4), Machine(3), Machine(3)))
    found = plan([waiting("a", workers=2), waiting("b")], mixed, QueueRules(cpus_per_worker=4))
    assert found.admitted == {"b"}
    assert "2 workers of 4 CPUs, and the cluster's machines have room for 1" in found.waiting["a"].message
    # Machines of another size may come.
    assert plan([waiting("a")], ClusterSize(8, 0), QueueRules(cpus_per_worker=4)).admitted == {"a"}


def test_workers_are_counted_into_the_machines_and_not_into_their_sum():
    size = ClusterSize(6, 0, machines=(Machine(3), Machine(3)))
    found = plan([training("a"), waiting("b", workers=2)], size, QueueRules(cpus_per_worker=2))
    assert "needs 2 workers of 2 CPUs, and the cluster's machines have room for 1 more" in found.waiting["b"].message
    assert plan([training("a"), waiting("b")], size, QueueRules(cpus_per_worker=2)).admitted == {"b"}
    tenths = ClusterSize(1, 0, machines=(Machine(0.3), Machine(0.7)))
    assert plan([waiting("a", workers=10)], tenths, QueueRules(cpus_per_worker=0.1)).admitted == {"a"}


def test_workers_with_a_gpu_need_its_machine_to_have_cpus_for_them():
    size = ClusterSize(66, 4, machines=(Machine(64), Machine(2, 4)))
    found = plan([waiting("a", workers=4)], size, QueueRules())
    assert "4 workers of 1 CPUs and a GPU" in found.waiting["a"].message


def test_what_others_hold_is_not_there_for_runs():
    runs = [training("a"), waiting("b"), waiting("c")]
    assert plan(runs, ClusterSize(4, 0, other_cpus=1), QueueRules()).admitted == {"b", "c"}
    found = plan(runs, ClusterSize(4, 0, other_cpus=2.5), QueueRules())
    assert found.admitted == frozenset()
    assert reasons(found) == {"b": (1, WaitReason.CLUSTER_FULL), "c": (2, WaitReason.EARLIER_RUNS)}
    message = found.waiting["b"].message
    assert message == "needs 1 CPUs and 0.5 of 4 are free, 2.5 being held by replicas and other jobs"
    found = plan([waiting("a")], ClusterSize(8, 1, other_gpus=1), QueueRules())
    assert "needs 1 GPUs and 0 of 1 are free, 1 being held" in found.waiting["a"].message


def test_a_run_that_others_leave_no_room_for_holds_up_nobody():
    found = plan([waiting("a", workers=3), waiting("b")], ClusterSize(4, 0, other_cpus=2), QueueRules())
    assert found.admitted == {"b"}
    assert reasons(found) == {"a": (1, WaitReason.CLUSTER_FULL)}


def test_nobody_starts_while_the_cluster_is_away():
    found = plan([waiting("a")], None, QueueRules())
    assert reasons(found) == {"a": (1, WaitReason.RETRY)}


def test_a_run_that_lost_its_job_keeps_its_place_and_a_paused_one_gives_it_back():
    lost = training("a").lose(now=START)
    assert plan([lost, waiting("b")], ClusterSize(1, 0), QueueRules()).admitted == frozenset()
    paused = training("a").pause(now=START).paused(now=START)
    assert plan([paused, waiting("b")], ClusterSize(1, 0), QueueRules()).admitted == {"b"}
    pausing = training("a").pause(now=START)
    assert plan([pausing, waiting("b")], ClusterSize(1, 0), QueueRules()).admitted == frozenset()


async def test_a_run_that_waits_says_why_once_and_starts_when_there_is_room():
    world = await a_world()
    world.cluster.cluster = ClusterSize(1, 0)
    reconciler = world.reconciler()
    await reconciler.step()
    await reconciler.step()
    run = await world.run()
    assert (run.state, run.attempt, run.waits_for) == (RunState.QUEUED, 0, "CLUSTER_FULL")
    lines = [body.message for body in await world.events() if isinstance(body, LogLine)]
    assert len(lines) == 1
    assert "place 1" in lines[0]
    assert (world.telemetry.queued, world.telemetry.waits) == (1, [])
    assert (await world.cases.cancel(world.name)).state is RunState.CANCELLED
    world = await a_world()
    await world.reconciler().step()
    assert world.cluster.submissions == ["u1-1"]
    assert (world.telemetry.queued, len(world.telemetry.waits)) == (0, 1)


async def started(size):
    """The first job on a cluster of that size, and what its run says of it."""
    world = await a_world()
    world.cluster.cluster = size
    await world.reconciler().step()
    warnings = [one.message for one in await world.events() if isinstance(one, LogLine) and one.severity == "WARNING"]
    return world, warnings


async def test_a_run_trains_on_what_it_was_admitted_for():
    world, warnings = await started(ClusterSize(64, 2))
    assert (world.cluster.use_gpu, warnings) == ({"u1-1": True}, [])
    assert (await world.run()).use_gpu is True
    world, warnings = await started(ClusterSize(64, 0))
    assert (world.cluster.use_gpu, warnings) == ({"u1-1": False}, [])


async def test_a_run_that_leaves_gpus_idle_says_so_once_for_each_attempt():
    world, warnings = await started(ClusterSize(64, 1))
    assert world.cluster.use_gpu == {"u1-1": False}
    assert warnings == ["trains on CPUs: 2 workers need a GPU each, and the cluster has 1"]
    world.cluster.cluster = ClusterSize(64, 2)
    world.cluster.jobs["u1-1"] = JobState.FAILED
    reconciler = world.reconciler()
    await reconciler.step()
    await reconciler.step()
    assert world.cluster.use_gpu == {"u1-1": False, "u1-2": True}
    assert sum("trains on CPUs" in str(one) for one in await world.events()) == 1


async def test_a_run_whose_workers_ray_does_not_start_says_so_once():
    world, clock = await a_world(), SteppingClock()
    reconciler = world.reconciler(clock=clock)
    await reconciler.step()
    await reconciler.step()
    assert await world.cases.queue_status(await world.run()) is None
    clock.time += timedelta(minutes=2)
    await reconciler.step()
    await reconciler.step()
    run = await world.run()
    assert (run.state, run.submitted, run.waits_for) == (RunState.QUEUED, True, "CLUSTER_FULL")
    status = await world.cases.queue_status(run)
    assert (status.position, status.reason) == (0, WaitReason.CLUSTER_FULL)
    assert "Ray has not started its 2 workers of 1 CPUs" in status.message
    assert sum("Ray has not started" in str(one) for one in await world.events()) == 1
    world.cluster.write(run, JobStarted())
    await reconciler.step()
    run = await world.run()
    assert (run.state, run.waits_for, await world.cases.queue_status(run)) == (RunState.RUNNING, "", None)


async def test_the_place_in_the_queue_is_known_before_the_loop_has_run():
    world = await a_world()
    world.cluster.cluster = ClusterSize(2, 0)
    await world.runs.create(a_run("run-b", "u2"))
    first, second = await world.runs.list_active()
    assert await world.cases.queue_status(first) is None
    status = await world.cases.queue_status(second)
    assert (status.position, status.reason) == (1, WaitReason.CLUSTER_FULL)
    await world.runs.create(a_run("run-c", "u3"))
    *_, third = await world.runs.list_active()
    assert (await world.cases.queue_status(third)).position == 2


async def test_runs_that_train_are_not_counted_as_others():
    world = await a_world()
    reconciler = world.reconciler()
    await reconciler.step()
    assert world.cluster.submissions == ["u1-1"]
    await world.runs.create(a_run("run-b", "u2"))
    world.cluster.cluster = ClusterSize(2, 0, other_cpus=1)
    reconciler = world.reconciler()
    await reconciler.step()
    assert world.cluster.own == {"u1-1"}
    first, second = await world.runs.list_active()
    assert (first.waits_for, second.waits_for) == ("", "CLUSTER_FULL")
    lines = [
        event.body.message for event in await world.runs.list_events("u2", 0, 10) if event.body.__class__ is LogLine
    ]
    assert "1 being held by replicas and other jobs" in lines[-1]
