from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.export import check_parity, export
from enxerto.vision.torch.segmentation.construction import BuiltSegmenter, build_segmenter
from enxerto.vision.torch.segmentation.decoders import FAMILIES, dilate
from enxerto.vision.torch.segmentation.network import Logits, SegmentationNetwork, ServedSegmenter
from enxerto.vision.torch.weights import WeightsSources
from fakes.dense_jobs import family, tiny_encoder

SOURCES = WeightsSources(download=False, cache=Path("/nonexistent"))
WHOLE = ("deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")


def _build(name: str, encoder: str = "", *, size: int = 64, weights: Weights = Weights.NONE) -> BuiltSegmenter:
    spec = FinetuneSpec.with_defaults(
        name, task=Task.SEGMENTATION, encoder=encoder, weights=weights, image_size=size, epochs=1
    )
    library = "" if encoder else f"torchvision/{name}"
    facts = family(name, Task.SEGMENTATION, library=library, takes_encoder=bool(encoder))
    return build_segmenter(spec, facts, 3, SOURCES)


class _Centred(SegmentationNetwork):
    """An untrained network whose classes are equally likely over some images, so that its answers differ."""

    def __init__(self, built: BuiltSegmenter, images: torch.Tensor) -> None:
        super().__init__(built.preprocess)
        self.inner = built.network
        with torch.no_grad():
            self.register_buffer("level", self.inner(images).main.mean(dim=(0, 2, 3), keepdim=True))

    def forward(self, images: torch.Tensor) -> Logits:
        return Logits(self.inner(images).main - self.level, None)


def _check_export(built: BuiltSegmenter, path: Path) -> None:
    coarse = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    size = (built.preprocess.height, built.preprocess.width)
    pictures = nn.functional.interpolate(coarse, size=size, mode="bilinear")
    served = ServedSegmenter(_Centred(built, pictures)).eval()
    names = ("background", "one", "two")
    export(served, path, task=Task.SEGMENTATION, class_names=names, preprocess=built.preprocess, provenance={})
    model = OnnxModel(path)
    images = pictures.numpy()
    parity = check_parity(served, model, images)
    assert parity.passes
    outputs = model.run(images)
    assert outputs["classes"].shape == (5, *images.shape[2:])
    assert outputs["classes"].dtype == np.uint8
    assert len(np.unique(outputs["classes"])) > 1
    assert outputs["confidence"].shape == (5,)
    assert 1 / 3 <= outputs["confidence"].min() <= outputs["confidence"].max() < 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports(name: str, tmp_path: Path) -> None:
    _check_export(_build(name, tiny_encoder()), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports_with_pretrained_weights(name: str, tmp_path: Path) -> None:
    built = _build(name, "efficientnet_lite0", size=96, weights=Weights.PRETRAINED)
    _check_export(built, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_torchvisions_networks_export(name: str, tmp_path: Path) -> None:
    _check_export(_build(name), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [64, 75])
def test_every_pixel_is_answered_whatever_the_size(name: str, size: int) -> None:
    built = _build(name, tiny_encoder(), size=size)
    with torch.inference_mode():
        classes, confidence = ServedSegmenter(built.network)(torch.rand(2, 3, size, size))
    assert classes.shape == (2, size, size)
    assert confidence.shape == (2,)


def test_dilation_keeps_the_resolution_and_the_weights() -> None:
    plain, _ = build_backbone("efficientnet_lite0", Weights.PRETRAINED, SOURCES)
    dilated, _ = build_backbone("efficientnet_lite0", Weights.PRETRAINED, SOURCES)
    assert dilate(dilated)
    picture = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        coarse, fine = plain.pyramid(picture)[-1], dilated.pyramid(picture)[-1]
    assert coarse.shape[-1] == 3
    assert fine.shape[-1] == 6
    assert not dilate(build_backbone(tiny_encoder(), Weights.NONE, SOURCES)[0])


@pytest.mark.parametrize("name", WHOLE)
def test_torchvisions_networks_get_new_last_layers_only(name: str) -> None:
    built = _build(name, size=64)
    heads = list(built.network.heads)
    assert all(isinstance(head, nn.Conv2d) and head.out_channels == 3 for head in heads)
    assert tuple(stage for stage, _ in built.network.stages) == get_facts(name).stages
    built.network.train()
    logits = built.network(torch.rand(2, 3, 64, 64))
    assert logits.main.shape == (2, 3, 64, 64)
    assert (logits.auxiliary is None) is name.startswith("lraspp")
    assert built.network.eval()(torch.rand(2, 3, 64, 64)).auxiliary is None
