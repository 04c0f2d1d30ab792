"""A machine of the cluster that dies under a run: its workers get another, within limits, and go on from there."""

import grpc
import pytest
from google.rpc import error_details_pb2

from enxerto.training.v1 import training_run_pb2
from training_calls import RUN_S, Watcher, ended, get_run, import_digits, start_run
from training_stack import eventually, running_ray, running_stack

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]
EPOCHS = 6


def start(training, snapshot, run_id):
    return start_run(
        training,
        snapshot,
        run_id,
        strategy=training_run_pb2.STRATEGY_FINE_TUNE,
        unfreezing=training_run_pb2.Unfreezing(stages=1),
        image_size=64,
        epochs=EPOCHS,
        stop=training_run_pb2.StopRule(early_stopping_patience=0),
    )


def tuned(training, name, epoch):
    """The last epoch of which there is a checkpoint, once it is this one or a later one."""

    def look():
        checkpoint = get_run(training, name).checkpoint
        return checkpoint.epoch if checkpoint.phase == "fine-tuning" and checkpoint.epoch >= epoch else None

    return eventually(look, RUN_S)


def test_a_run_survives_a_machine_and_fails_with_the_reason_when_another_dies(tmp_path):
    # The head has no CPU for workers: they are on the other machine.
    with running_ray(cpus=0) as ray, running_stack(ray, tmp_path, WORKER_RESTARTS="1") as stack:
        node = ray.add_node()
        snapshot = import_digits(stack)
        with stack.stubs() as (_, training):
            name = start(training, snapshot, "survivor")
            watcher = Watcher(stack.training.address, name)
            watcher.start()
            kept = tuned(training, name, 2)
            node.kill()
            node = ray.add_node()
            survivor = ended(training, name)
            watcher.join(10)
            name = start(training, snapshot, "unlucky")
            tuned(training, name, 1)
            node.kill()
            node = ray.add_node()
            before = tuned(training, name, 2)
            node.kill()
            unlucky = ended(training, name)
    assert survivor.state == training_run_pb2.TrainingRun.STATE_SUCCEEDED, survivor.error
    assert survivor.stop_reason == "EPOCHS"
    # The job lived on with the head; its workers alone were started again.
    assert survivor.restart_count == 0
    assert any(event.log_line.message == "the workers were started again" for event in watcher.events)
    epochs = watcher.epochs("fine-tuning")
    assert all(epochs.count(epoch) == 1 for epoch in range(1, kept + 1))
    assert sorted(set(epochs)) == list(range(1, EPOCHS + 1))
    assert unlucky.state == training_run_pb2.TrainingRun.STATE_FAILED
    assert unlucky.checkpoint.epoch >= before
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in unlucky.error.details)
    assert (unlucky.error.code, info.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "WORKERS_LOST")
    assert "workers died 2 times" in unlucky.error.message
    assert "node" in unlucky.error.message
    assert "Traceback" not in str(unlucky.error)
