"""Weights of whole detectors: what fits goes in, under old names too; what does not is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models import check_weights
from enxerto.vision.torch.detection.families import BuiltDetector, build_detector
from enxerto.vision.torch.weights import WeightsCorruptError, WeightsSources

Tensors = dict[str, torch.Tensor]
SSDLITE = "ssdlite320_mobilenet_v3_large"
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
STEM = "backbone.features.0.0.0.weight"


def _published(name: str) -> Tensors:
    torch.manual_seed(7)
    return dict(torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict())


@pytest.fixture(scope="module")
def ssdlite() -> Tensors:
    return _published(SSDLITE)


def _file(folder: Path, name: str, tensors: Tensors) -> Path:
    file = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return file


def _build(folder: Path, name: str) -> BuiltDetector:
    spec = FinetuneSpec.with_defaults(name, task=Task.DETECTION, weights=Weights.PRETRAINED)
    return build_detector(spec, get_facts(name), 3, WeightsSources(folder=folder, download=False))


def test_what_was_learned_on_coco_goes_in_and_the_predictor_is_new(tmp_path: Path, ssdlite: Tensors) -> None:
    file = _file(tmp_path, SSDLITE, ssdlite)
    sha256 = check_weights(get_facts(SSDLITE), file)
    built = _build(tmp_path, SSDLITE)
    assert built.weights is not None
    assert built.weights.sha256 == sha256
    filled = {name.partition(".")[2]: tensor for name, tensor in built.detector.state_dict().items()}
    assert torch.equal(filled[STEM], ssdlite[STEM])
    regression = [name for name in ssdlite if name.startswith("head.regression_head")]
    assert regression
    assert all(torch.equal(filled[name], ssdlite[name]) for name in regression)
    last = "head.classification_head.module_list.0.1.weight"
    assert filled[last].shape[0] == ssdlite[last].shape[0] // 91 * 4


def test_files_from_before_torchvision_renamed_its_layers_go_in(tmp_path: Path) -> None:
    tensors = _published(FASTER)
    old = {name.replace("rpn.head.conv.0.0.", "rpn.head.conv."): tensor for name, tensor in tensors.items()}
    assert set(old) != set(tensors)
    check_weights(get_facts(FASTER), _file(tmp_path, FASTER, old))
    filled = {name.partition(".")[2]: tensor for name, tensor in _build(tmp_path, FASTER).detector.state_dict().items()}
    assert torch.equal(filled["rpn.head.conv.0.0.weight"], tensors["rpn.head.conv.0.0.weight"])


def _renamed(tensors: Tensors) -> Tensors:
    return {name.replace(STEM, "stem.weight"): tensor for name, tensor in tensors.items()}


def _without(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != STEM}


def _misshaped(tensors: Tensors) -> Tensors:
    return {**tensors, STEM: torch.zeros(16, 3, 5, 5)}


@pytest.mark.parametrize("spoil", [_renamed, _without, _misshaped])
def test_what_does_not_fit_is_named(tmp_path: Path, ssdlite: Tensors, spoil: Callable[[Tensors], Tensors]) -> None:
    file = _file(tmp_path, SSDLITE, spoil(ssdlite))
    with pytest.raises(WeightsCorruptError) as error:
        check_weights(get_facts(SSDLITE), file)
    assert STEM in str(error.value)
    with pytest.raises(WeightsCorruptError) as error:
        _build(tmp_path, SSDLITE)
    assert STEM in str(error.value)
