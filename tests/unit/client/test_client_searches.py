"""What helps to choose: estimates, rankings, sweeps; and what a run leaves."""

import hashlib
from pathlib import Path

import pytest

from enxerto.client import Between, Client, DataLossError, NotFoundError, RunState, SweepState, TrainingFailedError
from enxerto.training.v1 import base_model_pb2, sweep_pb2, training_run_pb2, training_service_pb2
from fakes.scripted_services import ScriptedServices

SNAPSHOT = "projects/default/datasets/flowers/snapshots/1"
RUN = "projects/default/trainingRuns/r1"


def test_an_estimate_comes_after_its_progress(client: Client, services: ScriptedServices) -> None:
    estimate = training_service_pb2.TrainingEstimate(images_per_second=80, memory_bytes=5, device="cpu, 2 threads")
    estimate.duration.FromSeconds(90)
    answers = [
        training_service_pb2.EstimateTrainingRunResponse(progress=training_run_pb2.Progress(phase="preparing")),
        training_service_pb2.EstimateTrainingRunResponse(estimate=estimate),
    ]
    services.on("EstimateTrainingRun", lambda _request, _context: iter(answers))
    phases: list[str] = []
    found = client.estimate(SNAPSHOT, model="flowers", epochs=4, progressed=lambda p: phases.append(p.phase))
    assert phases == ["preparing"]
    assert (found.duration_s, found.images_per_second, found.device) == (90, 80, "cpu, 2 threads")
    assert services.requests("EstimateTrainingRun")[0].spec.epochs == 4


def test_a_stream_without_an_answer_is_an_error(client: Client, services: ScriptedServices) -> None:
    services.on("EstimateTrainingRun", lambda _request, _context: iter(()))
    with pytest.raises(DataLossError):
        client.estimate(SNAPSHOT, model="flowers")


def test_base_models_are_ranked(client: Client, services: ScriptedServices) -> None:
    ranking = training_service_pb2.BaseModelRanking(skipped={"baseModels/vgg16": "no weights"})
    score = ranking.scores.add(base_model="baseModels/resnet18", probe_accuracy=0.8, knn_accuracy=0.7)
    score.time_per_image.FromMilliseconds(12)
    answer = training_service_pb2.RecommendBaseModelsResponse(ranking=ranking)
    services.on("RecommendBaseModels", lambda _request, _context: iter([answer]))
    found = client.recommend(SNAPSHOT, base_models=["resnet18", "vgg16"], max_images=100)
    assert (found.scores[0].base_model, found.scores[0].time_per_image_s) == ("baseModels/resnet18", 0.012)
    assert found.skipped == {"baseModels/vgg16": "no weights"}
    assert list(services.requests("RecommendBaseModels")[0].base_models) == ["baseModels/resnet18", "baseModels/vgg16"]


def test_a_sweep_says_what_varies(client: Client, services: ScriptedServices) -> None:
    services.on("CreateSweep", lambda request, _context: request.sweep)
    client.sweep(
        SNAPSHOT,
        model="flowers",
        max_trials=20,
        vary={
            "learning_rate": Between(1e-4, 1e-2, log=True),
            "batch_size": Between(8, 64),
            "optimizer": ["adamw", "SGD"],
            "find_learning_rate": [True, False],
            "loss.label_smoothing": [0.0, 0.1],
        },
        epochs=5,
    )
    sweep = services.requests("CreateSweep")[0].sweep
    rate, batch, optimizer, find, smoothing = sweep.parameters
    assert (rate.float_range.min, rate.float_range.max, rate.float_range.log) == (1e-4, 1e-2, True)
    assert (batch.int_range.min, batch.int_range.max) == (8, 64)
    assert list(optimizer.choices.values) == ["OPTIMIZER_ADAMW", "OPTIMIZER_SGD"]
    assert list(find.choices.values) == ["true", "false"]
    assert (smoothing.field, list(smoothing.choices.values)) == ("loss.label_smoothing", ["0.0", "0.1"])
    assert (sweep.spec.epochs, sweep.max_trials) == (5, 20)
    with pytest.raises(TypeError, match="speed"):
        client.sweep(SNAPSHOT, model="flowers", max_trials=1, vary={"speed": [1]})


def test_a_sweep_is_waited_for(client: Client, services: ScriptedServices) -> None:
    states = iter([sweep_pb2.Sweep.STATE_RUNNING, sweep_pb2.Sweep.STATE_SUCCEEDED, sweep_pb2.Sweep.STATE_FAILED])

    def look(_request: object, _context: object) -> sweep_pb2.Sweep:
        sweep = sweep_pb2.Sweep(name="projects/default/sweeps/s1", state=next(states), best_run=RUN, best_score=0.9)
        sweep.trials.add(training_run=RUN, parameters={"epochs": "3"}, state=training_run_pb2.TrainingRun.STATE_RUNNING)
        return sweep

    services.on("GetSweep", look)
    sweep = client.wait_sweep("s1")
    assert (sweep.state, sweep.best_score) == (SweepState.SUCCEEDED, 0.9)
    assert (sweep.trials[0].state, sweep.trials[0].score) == (RunState.RUNNING, None)
    with pytest.raises(TrainingFailedError, match="FAILED"):
        client.wait_sweep("s1")


def test_pause_and_resume_name_the_run(client: Client, services: ScriptedServices) -> None:
    paused = training_run_pb2.TrainingRun(name=RUN, state=training_run_pb2.TrainingRun.STATE_PAUSED, restart_count=1)
    paused.checkpoint.epoch = 3
    paused.queue.position, paused.queue.reason = 2, "CLUSTER_FULL"
    services.on("PauseTrainingRun", paused)
    services.on("ResumeTrainingRun", paused)
    run = client.pause("r1")
    assert client.resume(run).state is RunState.PAUSED
    assert services.requests("PauseTrainingRun")[0].name == services.requests("ResumeTrainingRun")[0].name == RUN
    assert run.checkpoint is not None
    assert run.queue is not None
    assert (run.checkpoint.epoch, run.queue.position, run.restart_count) == (3, 2, 1)
    assert not run.state.is_final


def test_what_a_run_leaves_is_downloaded(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    run = training_run_pb2.TrainingRun(name=RUN)
    for name in ("painted.png", "report.html"):
        run.files.add(name=f"{RUN}/files/{name}", size_bytes=4)
    services.on("GetTrainingRun", run)
    chunks = [training_service_pb2.DownloadRunFileResponse(chunk=chunk) for chunk in (b"ab", b"cd")]
    services.on("DownloadRunFile", lambda _request, _context: iter(chunks))
    files = client.download_run_files("r1", tmp_path / "new")
    assert [file.name for file in files] == ["painted.png", "report.html"]
    assert files[0].read_bytes() == b"abcd"
    assert client.report("r1", tmp_path / "new").name == "report.html"
    del run.files[1]
    with pytest.raises(NotFoundError):
        client.report("r1", tmp_path / "new")


def test_weights_are_sent_with_their_sum(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8200
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    services.on("ImportBaseModelWeights", base_model_pb2.BaseModel(name="baseModels/vgg16", imported_weights="abc"))
    told: list[int] = []
    model = client.import_base_model("vgg16", path, uploaded=lambda sent, _total: told.append(sent))
    assert model.imported_weights == "abc"
    ((header, *chunks),) = services.requests("ImportBaseModelWeights")
    assert header.header.base_model == "baseModels/vgg16"
    assert header.header.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(chunk.chunk for chunk in chunks) == content
    assert told[-1] == len(content)
