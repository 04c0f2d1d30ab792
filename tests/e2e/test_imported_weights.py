"""Weights that cannot be downloaded, brought in through the command: every project trains from them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from e2e_loop import enxerto_json
from enxerto.client import Client
from enxerto.local.state import SERVICES
from platforms import Platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "mobilenet-v3-small"


def digests(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """What tensors hold, whatever their names are."""
    return {
        hashlib.sha256(f"{list(one.shape)}{one.dtype}".encode() + one.contiguous().numpy().tobytes()).hexdigest()
        for one in tensors.values()
    }


def test_a_run_in_another_project_starts_from_imported_weights(
    platform: Platform, digits_folder: Path, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = torchvision.models.get_model("mobilenet_v3_small", weights=None)
    given = network.state_dict()
    file = tmp_path / "anything.safetensors"
    save_file(given, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert enxerto_json(platform, "base-models", "show", NAME)["imported_weights"] == ""

    assert enxerto_json(platform, "base-models", "import", NAME, str(file))["imported_weights"] == sha256

    # Nothing that the file came from is needed any more.
    file.unlink()
    with Client(**{one: platform.address(one) for one in SERVICES}, project="elsewhere") as client:
        assert client.base_model(NAME).imported_weights == sha256
        data = client.import_dataset("digits", digits_folder)
        run = client.wait(client.train(data, model="digits", base_model=NAME, weights="pretrained", epochs=2, seed=5))
        assert (run.weights, run.strategy) == ("PRETRAINED", "FEATURE_EXTRACTION")
        assert run.model_version.startswith("projects/elsewhere/models/digits/versions/")
        version = client.version(run.model_version)
        client.download(run.model_version, tmp_path / "version")
    assert (version.lineage.weights_digest, version.lineage.weights_source) == (sha256, f"blob:{sha256}")
    backbone = {name: one for name, one in given.items() if not name.startswith("classifier.")}
    assert len(backbone) > 200
    assert digests(backbone) <= digests(load_file(tmp_path / "version" / "weights.safetensors"))


@pytest.mark.parametrize("named", ["weights.pth", "weights.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_code_is_refused_by_the_command(platform: Platform, tmp_path: Path, named: str) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("x",))

    torch.save({"features.0.0.weight": torch.zeros(16, 3, 3, 3), "more": Attack()}, tmp_path / named)
    before = enxerto_json(platform, "base-models", "show", "mobilenet-v3-large")
    command = ("base-models", "import", "mobilenet-v3-large", str(tmp_path / named))
    refused = platform.enxerto(*command, "--json")
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, error["code"], error["reason"]) == (3, "INVALID_ARGUMENT", "WEIGHTS_REFUSED")
    assert "must be a safetensors file, or a file with the published sha256" in error["message"]
    assert "other files may run code when they are opened" in platform.enxerto(*command).stderr
    assert not (tmp_path / "ran").exists()
    assert enxerto_json(platform, "base-models", "show", "mobilenet-v3-large") == before


def test_weights_of_another_network_are_refused_by_the_command(platform: Platform, tmp_path: Path) -> None:
    network = torchvision.models.get_model("mobilenet_v3_small", weights=None)
    save_file(network.state_dict(), tmp_path / "small.safetensors")
    command = ("base-models", "import", "mobilenet-v3-large", str(tmp_path / "small.safetensors"))
    refused = platform.enxerto(*command, "--json")
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, error["reason"]) == (3, "WEIGHTS_REFUSED")
    assert "does not fit torchvision/mobilenet_v3_large" in error["message"]
    assert enxerto_json(platform, "base-models", "show", "mobilenet-v3-large")["imported_weights"] == ""
