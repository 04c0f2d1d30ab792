"""The command as a person and a script see it, against services that answer what the test says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from enxerto.cli.failures import fail
from enxerto.cli.session import console, emit_table
from enxerto.cli.watching import _bars
from enxerto.client import DeploymentFailedError, EnxertoError, ImportFailedError, TrainingFailedError
from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2
from enxerto.training.v1 import sweep_pb2, training_run_pb2, training_service_pb2
from fakes.scripted_services import ScriptedServices, refuse, scripted_services
from platforms import run_enxerto

RUN = "projects/default/trainingRuns/r1"


@pytest.fixture
def services() -> Iterator[ScriptedServices]:
    with scripted_services() as running:
        yield running


def enxerto(services: ScriptedServices, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    addresses = [f"--{name}={services.address}" for name in ("registry", "training", "inference")]
    return run_enxerto(tmp_path, [*addresses, *arguments], timeout_s=60)


def script_run(services: ScriptedServices, state: "training_run_pb2.TrainingRun.State") -> None:
    run = training_run_pb2.TrainingRun(name=RUN, state=state, model_version="projects/default/models/m/versions/1")
    run.metrics.add(name="accuracy", value=0.975, split="test")
    if state == training_run_pb2.TrainingRun.STATE_FAILED:
        run.error.code, run.error.message = 9, "no weights offline"

    def events(_request: Any, _context: Any) -> Iterator[training_run_pb2.TrainingEvent]:
        progress = training_run_pb2.Progress(phase="head", epoch=1, epoch_count=2, images_per_second=80)
        epoch = training_run_pb2.EpochCompleted(progress=progress, learning_rate=0.01)
        epoch.metrics.add(name="loss", value=0.5, split="val")
        epoch.metrics.add(name="accuracy", value=0.9, split="val")
        yield training_run_pb2.TrainingEvent(cursor=1, progress=progress)
        yield training_run_pb2.TrainingEvent(cursor=2, epoch_completed=epoch)
        yield training_run_pb2.TrainingEvent(cursor=3, state_changed=training_run_pb2.StateChanged(state=state))

    services.on("CreateTrainingRun", run)
    services.on("GetTrainingRun", run)
    services.on("WatchTrainingRun", events)


def test_train_shows_epochs_and_the_result(services: ScriptedServices, tmp_path: Path) -> None:
    script_run(services, training_run_pb2.TrainingRun.STATE_SUCCEEDED)
    done = enxerto(services, tmp_path, "train", "flowers@1", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert "head epoch 1/2  val loss 0.500, accuracy 90.0 %  80 images/s" in done.stderr
    assert "accuracy             0.9750" in done.stdout


def test_train_as_json_is_events_and_at_last_the_run(services: ScriptedServices, tmp_path: Path) -> None:
    script_run(services, training_run_pb2.TrainingRun.STATE_SUCCEEDED)
    done = enxerto(services, tmp_path, "train", "flowers@1", "--json")
    *events, run = map(json.loads, done.stdout.splitlines())
    assert [event["cursor"] for event in events] == [1, 2, 3]
    assert (run["name"], run["state"], run["metrics"][0]["value"]) == (RUN, "SUCCEEDED", 0.975)
    assert not done.stderr


def test_a_failed_run_fails_the_command(services: ScriptedServices, tmp_path: Path) -> None:
    script_run(services, training_run_pb2.TrainingRun.STATE_FAILED)
    done = enxerto(services, tmp_path, "train", "flowers@1")
    assert done.returncode == 1
    assert "no weights offline" in done.stdout


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "UNAVAILABLE"])
@pytest.mark.parametrize("kind", [TrainingFailedError, DeploymentFailedError, ImportFailedError])
def test_what_has_failed_fails_the_command_whatever_it_failed_of(
    kind: type[EnxertoError], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(kind("it failed", code=code), as_json=True) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == code


def test_a_sweep_that_has_failed_fails_the_command(services: ScriptedServices, tmp_path: Path) -> None:
    sweep = sweep_pb2.Sweep(name="projects/default/sweeps/s1", state=sweep_pb2.Sweep.STATE_FAILED)
    sweep.error.code, sweep.error.message = 9, "every trial failed"
    services.on("GetSweep", sweep)
    done = enxerto(services, tmp_path, "sweeps", "wait", "s1")
    assert done.returncode == 1
    assert "every trial failed" in done.stderr


def test_brackets_and_colons_of_names_stay_as_they_are(services: ScriptedServices, tmp_path: Path) -> None:
    name = "cat [old] :dog:"
    run = training_run_pb2.TrainingRun(name=RUN, state=training_run_pb2.TrainingRun.STATE_SUCCEEDED)
    run.spec.base_model, run.model_version = f"baseModels/{name}", f"projects/default/models/{name}/versions/1"
    run.metrics.add(name="accuracy [/x]", value=0.5, split="test")
    services.on("GetTrainingRun", run)
    services.on("ListTrainingRuns", training_service_pb2.ListTrainingRunsResponse(training_runs=[run]))
    shown = enxerto(services, tmp_path, "runs", "show", "r1").stdout
    assert f"from       {name}, weights" in shown
    assert f"version    {name}@1" in shown
    assert "accuracy [/x]" in shown
    assert f"{name}@1" in enxerto(services, tmp_path, "runs", "list").stdout


def test_brackets_in_a_table_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table(("class", "parameter [/a]"), [("[old] cats [/b]", ":dog:")], "")
    shown = capsys.readouterr().out
    for text in ("parameter [/a]", "[old] cats [/b]", ":dog:"):
        assert text in shown


def test_a_name_with_brackets_may_be_waited_for(services: ScriptedServices, tmp_path: Path) -> None:
    version = model_version_pb2.ModelVersion(name="projects/default/models/m/versions/1")
    services.on("GetModelVersion", version)
    services.on("CreateDeployment", lambda request, _context: request.deployment)
    assert enxerto(services, tmp_path, "deploy", "m[/x]@1", "--no-wait").returncode == 0
    services.on("GetSweep", lambda _request, context: refuse(context, "NOT_FOUND", "no such sweep"))
    assert enxerto(services, tmp_path, "sweeps", "wait", "s[/x]").returncode == 4


def test_the_bars_show_a_phase_as_it_is_called() -> None:
    bars = _bars()
    bars.add_task("head [/x]", rate="", measured="", eta="")
    out = console()
    with out.capture() as captured:
        out.print(bars.get_renderable())
    assert "head [/x]" in captured.get()


def test_every_violation_is_on_a_line_with_the_request_id(services: ScriptedServices, tmp_path: Path) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="training_run.spec.learning_rate", description="must be positive")
    bad.field_violations.add(field="training_run.spec.epochs", description="must be at least 1")
    services.on("CreateTrainingRun", lambda _request, context: refuse(context, "INVALID_ARGUMENT", "2 bad fields", bad))
    arguments = ["train", "flowers@1", "--learning-rate", "0", "--epochs", "0"]
    done = enxerto(services, tmp_path, *arguments)
    request_id = services.calls[-1][2]["x-request-id"]
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "error: 2 bad fields",
        "  training_run.spec.learning_rate: must be positive",
        "  training_run.spec.epochs: must be at least 1",
        f"  request id {request_id}",
    ]
    error = json.loads(enxerto(services, tmp_path, *arguments, "--json").stderr)["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["violations"][1] == {"field": "training_run.spec.epochs", "description": "must be at least 1"}


def test_a_missing_model_and_an_absent_service_have_codes_of_their_own(
    services: ScriptedServices, tmp_path: Path
) -> None:
    services.on("GetModelVersion", lambda _request, context: refuse(context, "NOT_FOUND", "no such version"))
    assert enxerto(services, tmp_path, "models", "show", "flowers@9").returncode == 4
    gone = run_enxerto(tmp_path, ["models", "list", "--json"])
    assert gone.returncode == 5
    assert json.loads(gone.stderr)["error"]["reason"] == "PLATFORM_NOT_RUNNING"


def test_lists_are_tables_or_one_document(services: ScriptedServices, tmp_path: Path) -> None:
    aliases = {"production": "projects/default/models/flowers/versions/2"}
    model = model_pb2.Model(name="projects/default/models/flowers", aliases=aliases)
    services.on("ListModels", registry_service_pb2.ListModelsResponse(models=[model]))
    assert "production → flowers@2" in enxerto(services, tmp_path, "models", "list").stdout
    (found,) = json.loads(enxerto(services, tmp_path, "models", "list", "--json").stdout)["models"]
    assert (found["name"], found["aliases"]) == (model.name, aliases)


def test_help_needs_no_grpc() -> None:
    code = (
        "import sys, enxerto.cli; sys.argv = ['enxerto', '--help']\n"
        "try: enxerto.cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('grpc', 'rich.live', 'psutil', 'numpy', 'torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
