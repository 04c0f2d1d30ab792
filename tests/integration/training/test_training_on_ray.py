"""Runs on a real Ray: they end in a registered version, survive the service, and can be cancelled."""

import signal

import grpc
import pytest
from google.rpc import error_details_pb2

from enxerto.registry.v1 import model_version_pb2, registry_service_pb2
from enxerto.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2, training_run_pb2, training_service_pb2
from enxerto.training.v1.sweep_service_pb2_grpc import SweepServiceStub
from enxerto.training.v1.training_service_pb2_grpc import TrainingServiceStub
from training_calls import RUN_S, Watcher, ended, get_run, start_run
from training_stack import eventually

pytestmark = pytest.mark.timeout(400)
State = training_run_pb2.TrainingRun
ENDLESS = training_run_pb2.StopRule(early_stopping_patience=0)


# The same through the client is in tests/e2e/test_operations.py.
@pytest.mark.slow
def test_a_run_and_its_watch_stream_survive_the_death_of_the_service(cluster, snapshot):
    with cluster.stubs() as (_, training):
        name = start_run(training, snapshot, "survivor", epochs=5)
        watcher = Watcher(cluster.training.address, name)
        watcher.start()
        eventually(lambda: True if State.STATE_RUNNING in watcher.states else None, RUN_S)
    cluster.training.kill(signal.SIGKILL)
    seen = len(watcher.events)
    cluster.training.start()
    watcher.join(RUN_S)
    assert watcher.interruptions >= 1
    assert len(watcher.events) > seen
    assert [event.cursor for event in watcher.events] == list(range(1, len(watcher.events) + 1))
    assert watcher.states == [
        State.STATE_QUEUED,
        State.STATE_RUNNING,
        State.STATE_REGISTERING,
        State.STATE_SUCCEEDED,
    ]
    epochs = [event.epoch_completed.progress.epoch for event in watcher.events if event.HasField("epoch_completed")]
    assert epochs == [1, 2, 3, 4, 5]
    with cluster.stubs() as (_, training):
        run = get_run(training, name)
    assert run.stop_reason == "EPOCHS"
    assert {metric.name for metric in run.metrics} >= {"accuracy", "f1_macro"}
    with grpc.insecure_channel(cluster.registry.address) as channel:
        version = RegistryServiceStub(channel).GetModelVersion(
            registry_service_pb2.GetModelVersionRequest(name=run.model_version)
        )
    assert version.state == model_version_pb2.ModelVersion.STATE_READY
    assert version.parity.agreement >= 0.999
    assert version.lineage.training_run == name
    assert version.lineage.snapshot == snapshot
    assert len(version.lineage.snapshot_digest) == len(version.lineage.weights_digest) == 64
    assert {artifact.filename for artifact in version.artifacts} >= {"model.onnx", "report.html", "metrics.json"}
    assert list(version.label_map.names) == [str(digit) for digit in range(10)]


@pytest.mark.slow
def test_two_workers_train_together_on_two_cpus(cluster, snapshot):
    with cluster.stubs() as (_, training):
        name = start_run(
            training,
            snapshot,
            "pair",
            num_workers=2,
            strategy=training_run_pb2.STRATEGY_FINE_TUNE,
            epochs=1,
            unfreezing=training_run_pb2.Unfreezing(stages=1),
        )
        run = ended(training, name)
    assert run.state == State.STATE_SUCCEEDED, run.error
    assert run.progress.phase in ("exporting", "evaluating")


def test_cancelling_a_run_frees_its_workers(cluster, ray, snapshot):
    with cluster.stubs() as (_, training):
        name = start_run(training, snapshot, "unwanted", epochs=10_000, stop=ENDLESS, num_workers=2)
        eventually(lambda: True if get_run(training, name).state == State.STATE_RUNNING else None, RUN_S)
        assert len(ray.train_workers()) == 2
        request = training_service_pb2.CancelTrainingRunRequest(name=name)
        assert training.CancelTrainingRun(request).state == State.STATE_CANCELLING
        assert ended(training, name).state == State.STATE_CANCELLED
        assert training.CancelTrainingRun(request).state == State.STATE_CANCELLED
    eventually(lambda: None if ray.train_workers() else True, 30)


# How a worker says it is in tests/unit/training/test_training_worker.py.
@pytest.mark.slow
def test_a_run_without_weights_fails_with_what_to_do(cluster, snapshot):
    with cluster.stubs() as (_, training):
        run = ended(training, start_run(training, snapshot, "weightless", base_model="baseModels/resnet18"))
    assert run.state == State.STATE_FAILED
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in run.error.details)
    assert (run.error.code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "WEIGHTS_UNAVAILABLE")
    assert "efficientnet_lite0" in run.error.message
    assert "Traceback" not in str(run.error)


@pytest.mark.slow
def test_a_paused_run_goes_on_from_its_checkpoint(cluster, snapshot):
    with cluster.stubs() as (_, training):
        name = start_run(
            training,
            snapshot,
            "pausing",
            strategy=training_run_pb2.STRATEGY_FINE_TUNE,
            unfreezing=training_run_pb2.Unfreezing(stages=1),
            image_size=64,
            epochs=8,
            stop=ENDLESS,
        )
        watcher = Watcher(cluster.training.address, name)
        watcher.start()

        def has_tuned():
            checkpoint = get_run(training, name).checkpoint
            return True if checkpoint.phase == "fine-tuning" and checkpoint.epoch >= 1 else None

        eventually(has_tuned, RUN_S)
        training.PauseTrainingRun(training_service_pb2.PauseTrainingRunRequest(name=name))
        paused = eventually(
            lambda: run if (run := get_run(training, name)).state != State.STATE_PAUSING else None, RUN_S
        )
        assert paused.state == State.STATE_PAUSED
        before = paused.checkpoint.epoch
        training.ResumeTrainingRun(training_service_pb2.ResumeTrainingRunRequest(name=name))
        run = ended(training, name)
        watcher.join(10)
    assert run.state == State.STATE_SUCCEEDED, run.error
    assert run.restart_count == 0
    epochs = watcher.epochs("fine-tuning")
    # Epochs after the checkpoint are trained again at most once; none before it.
    assert all(epochs.count(epoch) == 1 for epoch in range(1, before + 1))
    assert epochs[-1] == 8


@pytest.mark.slow
def test_a_sweep_of_three_trials_links_the_best(cluster, snapshot):
    parameter = sweep_pb2.SweepParameter(
        field="learning_rate", float_range=sweep_pb2.FloatRange(min=1e-5, max=1e-2, log=True)
    )
    spec = training_run_pb2.TrainingSpec(
        snapshot=snapshot,
        base_model="baseModels/efficientnet-lite0",
        model="projects/default/models/swept",
        epochs=2,
    )
    given = sweep_pb2.Sweep(spec=spec, parameters=[parameter], max_trials=3, max_parallel_trials=2)
    with cluster.channel() as channel:
        stub = SweepServiceStub(channel)
        request = sweep_service_pb2.CreateSweepRequest(parent="projects/default", sweep_id="rates", sweep=given)
        name = stub.CreateSweep(request).name

        def over():
            sweep = stub.GetSweep(sweep_service_pb2.GetSweepRequest(name=name))
            return None if sweep.state == sweep_pb2.Sweep.STATE_RUNNING else sweep

        sweep = eventually(over, RUN_S, 0.5)
        best = get_run(TrainingServiceStub(channel), sweep.best_run)
    assert sweep.state == sweep_pb2.Sweep.STATE_SUCCEEDED, sweep.error
    assert len(sweep.trials) == 3
    assert sweep.best_score == max(trial.score for trial in sweep.trials)
    assert (best.sweep, best.state) == (name, State.STATE_SUCCEEDED)
