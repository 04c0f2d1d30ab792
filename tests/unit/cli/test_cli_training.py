"""Data, settings, searches and base models on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from enxerto.training.v1 import (
    base_model_pb2,
    dataset_pb2,
    dataset_service_pb2,
    sweep_pb2,
    training_run_pb2,
    training_service_pb2,
)
from fakes.scripted_services import ScriptedServices, refuse

RUN = "projects/default/trainingRuns/r1"


def report(importable: bool) -> dataset_pb2.ValidationReport:
    found = dataset_pb2.ValidationReport(importable=importable, finding_count=25, split_counts={"val": 2, "train": 8})
    for number in range(25):
        found.findings.add(
            severity=dataset_pb2.Finding.SEVERITY_ERROR,
            path=f"labels/{number}.txt",
            line=3,
            code="BOX_OUTSIDE",
            message="reaches beyond the picture",
        )
    found.statistics.format = "YOLO"
    found.statistics.annotation_count = 7
    found.statistics.classes.add(class_name="car", split_counts={"train": 5, "val": 2})
    found.statistics.classes.add(class_name="van")
    found.statistics.sizes.add(max_side=640, count=10)
    return found


def script_validation(scripted: ScriptedServices, importable: bool) -> None:
    answer = dataset_service_pb2.ValidateDatasetResponse(report=report(importable))
    scripted.on("GetDataset", lambda _request, context: refuse(context, "NOT_FOUND", "not there"))
    scripted.on("CreateDataset", dataset_pb2.Dataset())
    scripted.on("UploadArchive", dataset_service_pb2.UploadArchiveResponse(upload="projects/default/uploads/abc"))
    scripted.on("ValidateDataset", lambda _request, _context: iter([answer]))


def test_validation_is_a_table_and_fails_when_the_data_does(
    command, scripted: ScriptedServices, tmp_path: Path
) -> None:
    (tmp_path / "My Cars").mkdir()
    script_validation(scripted, importable=False)
    done = command("validate", str(tmp_path / "My Cars"), "--task", "detection")
    assert done.returncode == 1
    assert "YOLO, 7 annotations, images: train 8, val 2" in done.stdout
    assert "labels/0.txt:3" in done.stdout
    assert "and 5 more" in done.stdout
    assert "up to 640" in done.stdout
    assert "It cannot be imported" in done.stdout
    created = scripted.requests("CreateDataset")[0]
    assert (created.dataset_id, created.dataset.task) == ("validation-detection", 2)
    script_validation(scripted, importable=True)
    done = command("datasets", "validate", "cars", "s3://bucket/cars", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["statistics"]["classes"][0]["class_name"] == "car"


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--task", "dancing"]])
def test_what_cannot_be_read_is_wrong_usage(command, arguments: list[str]) -> None:
    assert command("validate", *arguments).returncode == 2


def test_every_setting_can_be_reached(command, scripted: ScriptedServices) -> None:
    scripted.on("CreateTrainingRun", lambda request, _context: request.training_run)
    done = command(
        "train", "flowers@1", "--detach", "--strategy", "fine-tune", "--unfreeze-stages", "2", "--max-minutes", "5",
        "--base-model", "unet", "--encoder", "resnet18", "--set", "loss.focal_gamma=2", "--set", "sampling=balanced",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spec = scripted.requests("CreateTrainingRun")[0].training_run.spec
    assert (spec.model, spec.encoder) == ("projects/default/models/flowers", "baseModels/resnet18")
    assert (spec.unfreezing.stages, spec.stop.max_duration.seconds, spec.loss.focal_gamma) == (2, 300, 2)
    assert spec.sampling == training_run_pb2.SAMPLING_BALANCED
    assert "loss.focal_gamma 2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "slow"], "FEATURE_EXTRACTION, FINE_TUNE"),
        (["--set", "loss.gamma=2"], "focal_gamma"),
        (["--set", "epochs"], "FIELD=VALUE"),
        (["--epochs", "99999999999"], "epochs does not take 99999999999"),
        (["--seed", "99999999999999999999"], "seed does not take"),
        (["--max-minutes", "inf"], "stop.max_duration does not take inf"),
        (["--set", "stop.max_duration=nan"], "stop.max_duration does not take nan"),
    ],
)
def test_a_setting_that_is_not_there_is_wrong_usage(command, arguments: list[str], words: str) -> None:
    done = command("train", "flowers@1", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_an_estimate_starts_nothing(command, scripted: ScriptedServices) -> None:
    estimate = training_service_pb2.TrainingEstimate(images_per_second=80, memory_bytes=2**30, device="cpu, 2 threads")
    estimate.duration.FromSeconds(3700)
    estimate.epoch_duration.FromSeconds(65)
    answer = training_service_pb2.EstimateTrainingRunResponse(estimate=estimate)
    scripted.on("EstimateTrainingRun", lambda _request, _context: iter([answer]))
    done = command("train", "flowers@1", "--estimate")
    assert "about 1 h 1 min, an epoch 1 min 5 s" in done.stdout
    assert "80 images/s on cpu, 2 threads" in done.stdout
    assert not scripted.requests("CreateTrainingRun")


def test_a_sweep_is_started_and_shown(command, scripted: ScriptedServices) -> None:
    def create(request: Any, _context: Any) -> sweep_pb2.Sweep:
        request.sweep.name = "projects/default/sweeps/s1"
        return request.sweep

    scripted.on("CreateSweep", create)
    done = command(
        "sweeps", "create", "flowers@1", "--vary", "learning_rate=log:1e-4..1e-2", "--vary", "batch_size=8..64",
        "--vary", "optimizer=adamw,sgd", "--trials", "5", "--set", "epochs=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sweep = scripted.requests("CreateSweep")[0].sweep
    rate, batch, optimizer = sweep.parameters
    assert (rate.float_range.max, rate.float_range.log, batch.int_range.max) == (0.01, True, 64)
    assert list(optimizer.choices.values) == ["OPTIMIZER_ADAMW", "OPTIMIZER_SGD"]
    assert (sweep.spec.epochs, sweep.max_trials) == (3, 5)
    assert command("sweeps", "create", "flowers@1", "--vary", "speed=1..2").returncode == 2
    assert command("sweeps", "create", "flowers@1", "--vary", "speed").returncode == 2
    vary = ("sweeps", "create", "flowers@1", "--vary", "epochs=1..3")
    assert command(*vary[:-1], "epochs=1..99999999999999999999").returncode == 2
    assert "--trials" in command(*vary, "--trials", "99999999999").stderr
    sweep.best_run, sweep.best_score = RUN, 0.875
    sweep.trials.add(training_run="projects/default/trainingRuns/r0", parameters={"batch_size": "8"})
    sweep.trials.add(training_run=RUN, parameters={"batch_size": "16"}, score=0.875)
    scripted.on("GetSweep", sweep)
    lines = command("sweeps", "show", "s1").stdout.splitlines()
    (best,) = [line for line in lines if "(best)" in line]
    assert "r1 (best)" in best
    assert "0.8750" in best
    assert "16" in best


def test_a_waiting_and_a_paused_run_say_why(command, scripted: ScriptedServices) -> None:
    run = training_run_pb2.TrainingRun(name=RUN, state=training_run_pb2.TrainingRun.STATE_QUEUED)
    run.queue.position, run.queue.message = 3, "the cluster is full"
    scripted.on("GetTrainingRun", run)
    assert "waits      place 3: the cluster is full" in command("runs", "show", "r1").stdout
    run.state = training_run_pb2.TrainingRun.STATE_PAUSING
    scripted.on("PauseTrainingRun", run)
    scripted.on("ResumeTrainingRun", run)
    assert "r1 is PAUSING; go on with: enxerto runs resume r1" in command("runs", "pause", "r1").stdout
    assert json.loads(command("runs", "resume", "r1", "--json").stdout)["state"] == "PAUSING"


def test_files_of_a_run_are_listed_and_fetched(command, scripted: ScriptedServices, tmp_path: Path) -> None:
    run = training_run_pb2.TrainingRun(name=RUN)
    run.files.add(name=f"{RUN}/files/painted.png", size_bytes=4, media_type="image/png")
    scripted.on("GetTrainingRun", run)
    chunk = training_service_pb2.DownloadRunFileResponse(chunk=b"abcd")
    scripted.on("DownloadRunFile", lambda _request, _context: iter([chunk]))
    assert "painted.png" in command("runs", "files", "r1").stdout
    done = command("runs", "files", "r1", str(tmp_path / "out"))
    assert done.stdout.strip() == str(tmp_path / "out" / "painted.png")


def test_base_models_are_listed_shown_and_fed(command, scripted: ScriptedServices, tmp_path: Path) -> None:
    model = base_model_pb2.BaseModel(
        name="baseModels/vgg16", task=1, library="torchvision", parameter_count=15_000_000, stages=["a", "b"]
    )
    scripted.on("ListBaseModels", training_service_pb2.ListBaseModelsResponse(base_models=[model]))
    scripted.on("GetBaseModel", model)
    for arguments in (["base-models"], ["base-models", "list"]):
        assert "vgg16" in command(*arguments).stdout
    assert "No base models" in command("base-models", "--task", "style").stdout
    assert "vgg16" in command("base-models", "--search", "vgg").stdout
    assert scripted.requests("ListBaseModels")[-1].search == "vgg"
    assert "stages     a, b" in command("base-models", "show", "vgg16").stdout
    weights = tmp_path / "vgg16.safetensors"
    weights.write_bytes(b"weights")
    model.imported_weights = "0123456789abcdef"
    scripted.on("ImportBaseModelWeights", model)
    assert "sha256 0123456789ab" in command("base-models", "import", "vgg16", str(weights)).stdout
    assert command("base-models", "import", "vgg16", str(tmp_path / "none")).returncode == 2


def test_recommendations_end_in_a_command_to_run(command, scripted: ScriptedServices) -> None:
    ranking = training_service_pb2.BaseModelRanking(skipped={"baseModels/vgg16": "no weights"})
    ranking.scores.add(base_model="baseModels/resnet18", probe_accuracy=0.8, knn_accuracy=0.7)
    answer = training_service_pb2.RecommendBaseModelsResponse(ranking=ranking)
    scripted.on("RecommendBaseModels", lambda _request, _context: iter([answer]))
    done = command("recommend", "flowers@1")
    assert "skipped vgg16: no weights" in done.stdout
    assert "enxerto train flowers@1 --base-model resnet18" in done.stdout
