"""Backbones by name: their stages, their features and their pyramids."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.finetuning import Weights
from enxerto.vision.torch.base_models import ChainBackbone, StagedBackbone, build_backbone
from enxerto.vision.torch.weights import WeightsSources

_NONE = WeightsSources(download=False)


def _random(name: str) -> StagedBackbone:
    return build_backbone(name, Weights.NONE, _NONE)[0]


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("efficientnet_lite0", (2, 4, 8, 16, 32), (16, 24, 40, 112, 1280)),
        ("resnet18", (2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
        ("vgg16", (2, 4, 8, 16, 32), (64, 128, 256, 512, 512)),
    ],
)
def test_a_pyramid_is_the_last_map_of_each_stride(
    name: str, strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    backbone = _random(name).train()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    levels = backbone.pyramid_info()
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
    assert tuple(level.stride for level in levels) == strides
    assert tuple(level.channels for level in levels) == channels
    with torch.inference_mode():
        images = torch.rand(1, 3, 64, 96)
        maps = backbone.eval().pyramid(images)
        running = images
        outputs = [running := stage(running) for _, stage in backbone.stages[: levels[-1].stage + 1]]
    for level, features in zip(levels, maps, strict=True):
        assert features.shape == (1, level.channels, 64 // level.stride, 96 // level.stride)
        torch.testing.assert_close(features, outputs[level.stage])


def test_a_pyramid_takes_any_size_and_goes_to_onnx(tmp_path: Path) -> None:
    class Pyramid(nn.Module):
        def __init__(self, backbone: StagedBackbone) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.backbone.pyramid(images))

    network = Pyramid(_random("efficientnet_lite0")).eval()
    dims = {0: torch.export.Dim("n", min=1), 2: torch.export.Dim("h", min=32), 3: torch.export.Dim("w", min=32)}
    program = torch.onnx.export(
        network, (torch.rand(2, 3, 64, 96),), input_names=["images"], dynamic_shapes=(dims,), dynamo=True, verbose=False
    )
    assert program is not None
    program.save(tmp_path / "pyramid.onnx")
    images = np.random.default_rng(0).random((3, 3, 65, 97), dtype=np.float32)
    answer = onnxruntime.InferenceSession(tmp_path / "pyramid.onnx").run(None, {"images": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images))
    for ours, theirs in zip(answer, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-4)


def test_a_backbone_without_maps_says_so() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    flat(torch.zeros(1, 3, 128, 192))
    backbone = ChainBackbone([("all", flat)], nn.Identity(), 4, name="flat")
    with pytest.raises(InvalidArgumentError, match="flat has no feature pyramid"):
        backbone.pyramid(torch.zeros(1, 3, 128, 192))
