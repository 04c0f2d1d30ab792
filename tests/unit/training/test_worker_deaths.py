"""What a job says when its workers died oftener than they are replaced."""

from pathlib import Path

import ray.exceptions
import ray.train
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from enxerto.kernel.errors import DataLossError
from enxerto.training.errors import WorkersLostError
from enxerto.training.worker.deaths import death_in
from enxerto.training.worker.failures import last_word, write_failure
from enxerto.training.worker.order import JobOrder

DIED = (
    "The actor died unexpectedly before finishing this task.\n"
    "\tclass_name: RayTrainWorker\n"
    "\tactor_id: 5ecre7\n"
    "\tip: 10.0.0.7\n"
    "The actor died because its node has died. Node Id: ab12\n"
    "\tthe actor's node was terminated unexpectedly: health check failed"
)


def an_order(tmp_path: Path) -> JobOrder:
    return JobOrder(tmp_path.as_uri(), "run1", 1, tmp_path / "cache", None)


def test_a_death_is_told_in_the_clusters_words_without_its_ids() -> None:
    death = WorkerHealthCheckFailedError("worker 0 is not healthy", ray.exceptions.RayActorError(error_msg=DIED))
    # With several workers the others see no more than that a neighbour is silent.
    failed = ray.train.WorkerGroupError("two workers failed", {0: RuntimeError("connection reset"), 1: death})
    told = death_in(failed)
    assert "The actor died because its node has died." in told
    assert not any(secret in told for secret in ("5ecre7", "10.0.0.7", "\n"))
    assert death_in(ray.train.WorkerGroupError("a bug", {0: ZeroDivisionError()})) == ""
    assert death_in(ray.train.ControllerError(RuntimeError("no room"))) == ""


def test_a_worker_that_is_missed_before_ray_knows_why_is_told_without_ids_too() -> None:
    missed = ray.exceptions.ActorUnavailableError("failed to connect to ipv4:10.0.0.7:40813", b"\x3a" * 16)
    death = WorkerHealthCheckFailedError("worker 0 is not healthy", missed)
    told = death_in(ray.train.WorkerGroupError("a worker failed", {0: death}))
    assert told == "a worker cannot be reached any more: it, or its node, has died"


def test_the_last_word_is_what_a_worker_left_or_else_how_it_died(tmp_path: Path) -> None:
    order, lost = an_order(tmp_path), WorkersLostError("projects/default/trainingRuns/run1", 3, "its node has died")
    status, info = Status.FromString(last_word(order, lost)), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (status.code, info.reason) == (code_pb2.UNAVAILABLE, "WORKERS_LOST")
    assert status.message.startswith("projects/default/trainingRuns/run1: its workers died 3 times")
    assert status.message.endswith("its node has died")
    assert write_failure(order, DataLossError("the shard is damaged"))
    assert Status.FromString(last_word(order, lost)).message == "the shard is damaged"
