"""torchvision's classifiers taken apart: the stages of each family, and the pooling behind them."""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.vision_transformer import VisionTransformer

from enxerto.vision.torch.learner import Stages

Parts = tuple[Stages, nn.Module]
"""Stages, and what makes a vector of the last one's output."""


def split_efficientnet_lite0(network: nn.Module) -> Parts:
    """timm's EfficientNet."""
    parts = dict(network.named_children())
    blocks = [(f"block{index}", block) for index, block in enumerate(cast(nn.Sequential, parts["blocks"]))]
    stem = nn.Sequential(parts["conv_stem"], parts["bn1"])
    top = nn.Sequential(parts["conv_head"], parts["bn2"])
    return [("stem", stem), *blocks, ("top", top)], parts["global_pool"]


def split_resnet(network: nn.Module) -> Parts:
    """ResNet: the stem and four layers."""
    parts = dict(network.named_children())
    stem = nn.Sequential(parts["conv1"], parts["bn1"], parts["relu"])
    # The pooling goes to the next stage, so that the pyramid has a level of stride 2.
    layer1 = nn.Sequential(parts["maxpool"], parts["layer1"])
    layers = [(name, parts[name]) for name in ("layer2", "layer3", "layer4")]
    return [("stem", stem), ("layer1", layer1), *layers], nn.Sequential(parts["avgpool"], nn.Flatten())


def split_vgg(network: nn.Module) -> Parts:
    """VGG: convolutions up to each pooling, and the two hidden layers of its classifier."""
    parts = dict(network.named_children())
    stages: list[tuple[str, nn.Module]] = []
    convolutions: list[nn.Module] = []
    for layer in cast(nn.Sequential, parts["features"]):
        convolutions.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append((f"conv{len(stages) + 1}", nn.Sequential(*convolutions)))
            convolutions = []
    classifier = list(cast(nn.Sequential, parts["classifier"]))
    fc6 = nn.Sequential(parts["avgpool"], nn.Flatten(), *classifier[:3])
    fc7 = nn.Sequential(*classifier[3:6])
    return [*stages, ("fc6", fc6), ("fc7", fc7)], nn.Identity()


def split_efficientnet(network: nn.Module) -> Parts:
    """EfficientNet of both versions: the stem, the blocks and the last convolution."""
    parts = dict(network.named_children())
    return _stem_blocks_top(parts["features"]), nn.Sequential(parts["avgpool"], nn.Flatten())


def split_mobilenet_v3(network: nn.Module) -> Parts:
    """MobileNetV3: as EfficientNet, and the hidden layer of its classifier."""
    parts = dict(network.named_children())
    hidden, activation, *_ = cast(nn.Sequential, parts["classifier"])
    fc = nn.Sequential(parts["avgpool"], nn.Flatten(), hidden, activation)
    return [*_stem_blocks_top(parts["features"]), ("fc", fc)], nn.Identity()


def split_convnext(network: nn.Module) -> Parts:
    """ConvNeXt: the stem, four stages with the reduction that leads to each, and the last normalisation."""
    parts = dict(network.named_children())
    stem, first, *rest = cast(nn.Sequential, parts["features"])
    norm, flatten, *_ = cast(nn.Sequential, parts["classifier"])
    stages: list[tuple[str, nn.Module]] = [("stem", stem), ("stage1", first)]
    for reduction, blocks in zip(rest[::2], rest[1::2], strict=True):
        stages.append((f"stage{len(stages)}", nn.Sequential(reduction, blocks)))
    return [*stages, ("norm", nn.Sequential(parts["avgpool"], norm, flatten))], nn.Identity()


def split_vit(network: nn.Module) -> Parts:
    """Vision transformer: the patches, the blocks and the last normalisation; the class token is the vector."""
    encoder = cast(VisionTransformer, network).encoder
    blocks = [(f"block{index}", block) for index, block in enumerate(encoder.layers, start=1)]
    return [("stem", _Patches(cast(VisionTransformer, network))), *blocks, ("norm", encoder.ln)], _ClassToken()


def _stem_blocks_top(features: nn.Module) -> list[tuple[str, nn.Module]]:
    stem, *blocks, top = cast(nn.Sequential, features)
    return [("stem", stem), *((f"block{index}", block) for index, block in enumerate(blocks, start=1)), ("top", top)]


class _Patches(nn.Module):
    """(N, 3, H, W) images to (N, 1 + patches, D), the class token first. Takes any size, unlike torchvision's own."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.convolution = network.conv_proj
        self.class_token = network.class_token
        self.positions = network.encoder.pos_embedding
        self.dropout = network.encoder.dropout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(images)
        rows, columns = maps.shape[2:]
        # `len` would make a constant of the batch when the network is exported.
        tokens = torch.cat((self.class_token.expand(maps.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)), dim=1)
        return cast(torch.Tensor, self.dropout(tokens + self._positions_of(rows, columns)))

    def _positions_of(self, rows: int, columns: int) -> torch.Tensor:
        positions = cast(torch.Tensor, self.positions)
        token, grid = positions[:, :1], positions[:, 1:]
        side = round(grid.shape[1] ** 0.5)
        if (rows, columns) == (side, side):
            return positions
        # As the original does for another resolution (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2).
        maps = grid.transpose(1, 2).reshape(1, -1, side, side)
        scaled = functional.interpolate(maps, (rows, columns), mode="bicubic", align_corners=True)
        return torch.cat((token, scaled.flatten(2).transpose(1, 2)), dim=1)


class _ClassToken(nn.Module):
    """(N, 1 + patches, D) to (N, D)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


SPLITS: Final = {
    "resnet": split_resnet,
    "vgg": split_vgg,
    "efficientnet": split_efficientnet,
    "mobilenet": split_mobilenet_v3,
    "convnext": split_convnext,
    "vit": split_vit,
}
"""By the letters that a torchvision name begins with."""
