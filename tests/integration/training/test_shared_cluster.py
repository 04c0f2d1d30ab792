"""A cluster that is not for training alone: the queue counts what others hold of it, and nothing twice."""

import shlex
import sys

import pytest

from enxerto.training.v1 import training_run_pb2, training_service_pb2
from training_calls import RUN_S, ended, get_run, import_digits, start_run
from training_stack import eventually, running_ray, running_stack

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("platform"), pytest.mark.timeout(400)]
State = training_run_pb2.TrainingRun
STRANGER = """
import time

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ray.init(log_to_driver=False)


@ray.remote
class Actor:
    def answer(self):
        return True


@ray.remote(num_cpus=1)
def hold():
    time.sleep(600)


group = placement_group([{"CPU": 1}])
inside = PlacementGroupSchedulingStrategy(placement_group=group)
actors = [
    Actor.options(num_cpus=1).remote(),
    Actor.options(num_cpus=1, scheduling_strategy=inside).remote(),
    # This one needs a CPU to start and holds none.
    Actor.remote(),
]
ray.get([actor.answer.remote() for actor in actors])
ray.get(hold.remote())
"""


def test_what_a_stranger_holds_makes_runs_wait_until_it_is_free(tmp_path):
    with running_ray(cpus=4) as ray, running_stack(ray, tmp_path) as stack:
        snapshot = import_digits(stack)
        entrypoint = shlex.join([sys.executable, "-c", STRANGER])
        ray.call("/api/jobs/", {"entrypoint": entrypoint, "submission_id": "stranger"})
        # The task comes last, and Ray lists it about a second after it has begun.
        eventually(lambda: True if "hold" in ray.running_tasks() else None)
        with stack.stubs() as (_, training):

            def start(run_id, workers):
                endless = training_run_pb2.StopRule(early_stopping_patience=0)
                return start_run(training, snapshot, run_id, num_workers=workers, epochs=10_000, stop=endless)

            def waits(name):
                return eventually(lambda: get_run(training, name).queue.message or None)

            def runs(name):
                return eventually(lambda: True if get_run(training, name).state == State.STATE_RUNNING else None, RUN_S)

            pair = start("pair", 2)
            assert waits(pair) == "needs 2 CPUs and 1 of 4 are free, 3 being held by replicas and other jobs"
            ray.call("/api/jobs/stranger/stop", {})
            assert runs(pair)
            # What the service's own runs hold is not taken for a stranger's as well.
            three = start("three", 3)
            assert waits(three) == "needs 3 CPUs and 2 of 4 are free"
            for name in (three, pair):
                training.CancelTrainingRun(training_service_pb2.CancelTrainingRunRequest(name=name))
            assert {ended(training, name).state for name in (pair, three)} == {State.STATE_CANCELLED}
