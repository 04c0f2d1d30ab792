"""Smaller graphs keep their contract and metadata, and answer nearly the same."""

import fcntl
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from enxerto.vision.finetuning import QuantizationMode, QuantizationSpec
from enxerto.vision.onnx.quantization import QuantizationError, QuantizationLossError, check_loss, quantize
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.onnx.tensorrt import building, tensorrt_options
from enxerto.vision.specs import PreprocessSpec, Resize, Task
from enxerto.vision.torch.export import export
from fakes.tiny_onnx import TinyModel

# What is made smaller is exported once.
pytestmark = pytest.mark.xdist_group("quantization")
SMALLER = [mode for mode in QuantizationMode if mode is not QuantizationMode.NONE]
SPEC = PreprocessSpec(32, 32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU()
        )
        self.head = nn.Linear(64, 4)

    gives_optional = True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(images).mean(dim=(2, 3))
        return self.head(features).softmax(dim=1), features


class Masks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 3, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = nn.functional.interpolate(self.body(images), size=images.shape[2:], mode="bilinear")
        best = logits.softmax(dim=1).max(dim=1)
        return best.indices.to(torch.uint8), best.values.mean(dim=(1, 2))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(Network(), Task.CLASSIFICATION, tmp_path_factory.mktemp("c") / "model.onnx", SPEC)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = PreprocessSpec(32, 32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, Resize.LETTERBOX)
    return _export(Masks(), Task.SEGMENTATION, tmp_path_factory.mktemp("m") / "model.onnx", spec)


def _export(network: nn.Module, task: Task, path: Path, spec: PreprocessSpec) -> Path:
    torch.manual_seed(0)
    export(network.eval(), path, task=task, class_names=("a", "b", "c", "d"), preprocess=spec, provenance={"run": "r"})
    return path


def _images(count: int = 12) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, 32, 32), np.float32)


@pytest.mark.parametrize("mode", SMALLER)
def test_a_smaller_classifier_answers_nearly_the_same(mode: QuantizationMode, classifier: Path, tmp_path: Path) -> None:
    target = tmp_path / "smaller.onnx"
    quantize(classifier, target, mode, _images())
    before, after = OnnxModel(classifier), OnnxModel(target)
    assert after.card == before.card
    expected, actual = before.run(_images(5))["probabilities"], after.run(_images(5))["probabilities"]
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=0.03)
    assert not np.array_equal(actual, expected)
    expected, actual = (model.run(_images(5), ["embedding"])["embedding"] for model in (before, after))
    assert actual.dtype == np.float32
    assert np.linalg.norm(actual - expected) < 0.05 * np.linalg.norm(expected)
    assert target.stat().st_size < (0.65 if mode is QuantizationMode.FP16 else 0.6) * classifier.stat().st_size


@pytest.mark.parametrize("mode", SMALLER)
def test_masks_of_a_smaller_graph_are_nearly_the_same(mode: QuantizationMode, masks: Path, tmp_path: Path) -> None:
    quantize(masks, tmp_path / "smaller.onnx", mode, _images())
    expected, actual = OnnxModel(masks).run(_images(3)), OnnxModel(tmp_path / "smaller.onnx").run(_images(3))
    assert actual["classes"].dtype == np.uint8
    assert (actual["classes"] == expected["classes"]).mean() > 0.9


@pytest.mark.parametrize("mode", SMALLER)
def test_tensorrt_leaves_smaller_numbers_to_cuda(mode: QuantizationMode, classifier: Path, tmp_path: Path) -> None:
    model = tmp_path / "smaller.onnx"
    quantize(classifier, model, mode, _images())
    assert tensorrt_options(model, OnnxModel(model).card, 16, tmp_path) is None


def test_tensorrt_computes_what_is_float32(classifier: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    options = tensorrt_options(classifier, OnnxModel(classifier).card, 16, engines)
    assert options is not None
    assert [options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")] == [
        "images:1x3x32x32",
        "images:16x3x32x32",
        "images:16x3x32x32",
    ]
    with building(options), (engines / "lock").open() as lock:
        assert options["trt_engine_cache_path"] == str(engines)
        # Who comes meanwhile waits.
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with building(options):
        pass


def test_tensorrt_leaves_inputs_of_any_size_to_cuda(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(TinyModel(resize=Resize.FIT).data)
    assert tensorrt_options(path, OnnxModel(path).card, 16, tmp_path) is None


def test_a_graph_that_the_tools_refuse_fails_in_words(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="STATIC_INT8"):
        quantize(classifier, tmp_path / "x.onnx", QuantizationMode.STATIC_INT8, np.zeros((1, 3, 8, 9), np.float32))


def test_a_loss_over_the_limit_is_refused_with_both_numbers() -> None:
    spec = QuantizationSpec(mode=QuantizationMode.STATIC_INT8, max_score_loss=0.01)
    check_loss(spec, "accuracy", 0.9, 0.895)
    check_loss(spec, "accuracy", 0.9, 0.95)
    with pytest.raises(QuantizationLossError, match=r"accuracy from 0\.9000 to 0\.8800") as refused:
        check_loss(spec, "accuracy", 0.9, 0.88)
    assert refused.value.reason == "QUANTIZATION_LOSS"
    with pytest.raises(QuantizationLossError):
        check_loss(spec, "accuracy", 0.9, float("nan"))
