"""A cluster that dies with everything on it: the run is submitted again and goes on from its last checkpoint."""

import pytest

from enxerto.training.v1 import training_run_pb2
from training_calls import RUN_S, Watcher, ended, get_run, import_digits, start_run
from training_stack import eventually, running_ray, running_stack

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("platform"), pytest.mark.timeout(600)]
EPOCHS = 12


def test_a_run_survives_a_restart_of_the_cluster(tmp_path):
    with running_ray(cpus=1) as ray, running_stack(ray, tmp_path) as stack:
        snapshot = import_digits(stack)
        with stack.stubs() as (_, training):
            name = start_run(
                training,
                snapshot,
                strategy=training_run_pb2.STRATEGY_FINE_TUNE,
                unfreezing=training_run_pb2.Unfreezing(stages=1),
                image_size=64,
                epochs=EPOCHS,
                stop=training_run_pb2.StopRule(early_stopping_patience=0),
            )
            watcher = Watcher(stack.training.address, name)
            watcher.start()

            def has_tuned():
                checkpoint = get_run(training, name).checkpoint
                return checkpoint.epoch if checkpoint.phase == "fine-tuning" and checkpoint.epoch >= 2 else None

            kept = eventually(has_tuned, RUN_S)
            ray.kill()
            ray.start()
            run = ended(training, name)
            watcher.join(10)
    assert run.state == training_run_pb2.TrainingRun.STATE_SUCCEEDED, run.error
    assert run.restart_count == 1
    epochs = watcher.epochs("fine-tuning")
    # Those up to the checkpoint are done once; the one that was lost may be done again.
    assert all(epochs.count(epoch) == 1 for epoch in range(1, kept + 1))
    assert sorted(set(epochs)) == list(range(1, EPOCHS + 1))
    assert run.stop_reason == "EPOCHS"
