"""The main job through the command and the client: import, train, register, promote, deploy, predict."""

import hashlib
from pathlib import Path

import pytest

from e2e_loop import Grafted, enxerto_json
from enxerto.client import NotFoundError, RunState


def test_the_run_registered_a_version_with_its_lineage(grafted: Grafted) -> None:
    client, run = grafted.platform.client, grafted.run
    assert run["state"] == "SUCCEEDED"
    version = client.version(run["model_version"])
    assert version.state == "READY"
    assert version.class_names == tuple("0123456789")
    assert version.lineage.snapshot == grafted.snapshot["name"]
    assert version.lineage.snapshot_digest == grafted.snapshot["digest"]
    assert version.lineage.base_model == "baseModels/efficientnet-lite0"
    assert version.lineage.training_run == run["name"]
    assert len(version.lineage.weights_digest) == 64
    assert version.parity is not None
    assert version.parity.agreement == 1
    assert version.parity.batch_sizes == (1, 2, 8)
    assert version.parity.max_abs_difference < 1e-4


def test_the_command_and_the_client_tell_the_same(grafted: Grafted) -> None:
    client = grafted.platform.client
    assert client.run(grafted.run["name"]).state is RunState.SUCCEEDED
    assert grafted.run["name"] in {run["name"] for run in enxerto_json(grafted.platform, "runs", "list")["runs"]}
    shown = enxerto_json(grafted.platform, "models", "show", "digits@production")
    assert shown["name"] == client.version("digits").name == grafted.run["model_version"]
    deployments = enxerto_json(grafted.platform, "deployments", "list")["deployments"]
    assert grafted.deployment["name"] in {deployment["name"] for deployment in deployments}


def test_what_was_learnt_answers_for_new_images(grafted: Grafted) -> None:
    arguments = ["predict", *map(str, grafted.held_out), "--deployment", "digits"]
    predictions = enxerto_json(grafted.platform, *arguments)["predictions"]
    right = [item["answer"]["label"] == Path(item["image"]).parent.name for item in predictions]
    assert len(right) == 10
    # Chance is 1 of 10; 12 images a class give about 8 of 10.
    assert sum(right) >= 5
    assert {item["answer"]["model_version"] for item in predictions} == {grafted.run["model_version"]}


def test_a_version_comes_back_with_its_bytes_and_report(grafted: Grafted, tmp_path: Path) -> None:
    version = grafted.platform.client.version("digits@production")
    files = enxerto_json(grafted.platform, "models", "download", "digits@production", str(tmp_path))["files"]
    digests = {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    assert digests == {artifact.filename: artifact.sha256 for artifact in version.artifacts}
    assert {"model.onnx", "report.html", "weights.safetensors"} <= set(digests)


def test_the_events_can_be_read_again(grafted: Grafted) -> None:
    events = list(grafted.platform.client.watch(grafted.run["name"]))
    assert [event.cursor for event in events] == list(range(1, len(events) + 1))
    states = [event.state for event in events if event.state]
    assert states == ["QUEUED", "RUNNING", "REGISTERING", "SUCCEEDED"]
    epochs = [event for event in events if event.kind == "epoch"]
    assert all(event.metric("loss", "val") is not None for event in epochs)
    middle = events[len(events) // 2].cursor
    again = grafted.platform.client.watch(grafted.run["name"], after_cursor=middle)
    assert next(again).cursor == middle + 1


def test_bad_settings_are_all_named(grafted: Grafted) -> None:
    done = grafted.platform.enxerto("train", "digits", "--learning-rate", "0", "--epochs", "0", "--model", "a/b")
    assert done.returncode == 3
    for field in ("learning_rate", "epochs", "model"):
        assert f"training_run.spec.{field}" in done.stderr, done.stderr
    assert "request id" in done.stderr


def test_an_alias_that_does_not_exist_is_not_found(grafted: Grafted) -> None:
    with pytest.raises(NotFoundError):
        grafted.platform.client.deploy("other", "digits@no-such-alias", wait=False)
    assert grafted.platform.enxerto("models", "show", "digits@no-such-alias").returncode == 4
