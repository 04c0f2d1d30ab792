"""Any pretrained backbone as the source of a detector's feature maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.torch.base_models.backbone import PyramidLevel, StagedBackbone
from enxerto.vision.torch.learner import Stages

_WIDE: Final = 512


class Encoder(nn.Module):
    """A backbone's maps at the wanted strides.

    Attributes:
        channels: of each map.
    """

    def __init__(self, backbone: StagedBackbone, strides: Sequence[int]) -> None:
        super().__init__()
        levels = backbone.pyramid_info()
        there = {level.stride for level in levels}
        missing = [str(stride) for stride in strides if stride not in there]
        if missing:
            text = f"{backbone.name} has no feature map at stride {', '.join(missing)}; choose another backbone"
            raise InvalidArgumentError([Violation("encoder", text)])
        self.backbone = backbone
        self._picks = [index for index, level in enumerate(levels) if level.stride in strides]
        chosen: list[PyramidLevel] = [levels[index] for index in self._picks]
        self.channels = [level.channels for level in chosen]
        self._last = max(level.stage for level in chosen)

    @property
    def stages(self) -> Stages:
        """The backbone's, up to the last that a map is taken from."""
        return list(self.backbone.stages)[: self._last + 1]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) standardised images to maps, finest first."""
        maps = self.backbone.pyramid(images)
        return [maps[index] for index in self._picks]


def pyramid_width(channels: Sequence[int]) -> int:
    """Channels of a feature pyramid: the papers' 256, half of it on the narrow backbones that are made to be fast."""
    second = sorted(channels)[-2]
    return 256 if second >= _WIDE else 128


class EncoderPyramid(nn.Module):
    """A backbone with a feature pyramid (Lin et al. 2017, arXiv:1612.03144) for Faster R-CNN and RetinaNet.

    Attributes:
        out_channels: of every map.
    """

    def __init__(self, encoder: Encoder, *, two_stage: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = pyramid_width(encoder.channels)
        extra = LastLevelMaxPool() if two_stage else LastLevelP6P7(self.out_channels, self.out_channels)
        self.fpn = FeaturePyramidNetwork(encoder.channels, self.out_channels, extra_blocks=extra)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 3, H, W) standardised images to maps by name, finest first."""
        maps = self.encoder(images)
        named = OrderedDict((str(index), one) for index, one in enumerate(maps))
        return cast("dict[str, torch.Tensor]", self.fpn(named))


class EncoderWithExtras(nn.Module):
    """A backbone followed by layers that halve the map again and again, for SSD.

    Attributes:
        channels: of each map.
    """

    def __init__(self, encoder: Encoder, widths: Sequence[int], *, separable: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = [*encoder.channels, *widths]
        before = [encoder.channels[-1], *widths[:-1]]
        self.extra = nn.ModuleList(_halving(a, b, separable=separable) for a, b in zip(before, widths, strict=True))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 3, H, W) standardised images to maps by name, finest first."""
        maps = self.encoder(images)
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(index), one) for index, one in enumerate(maps))


def _halving(before: int, after: int, *, separable: bool) -> nn.Module:
    middle = after // 2
    layers: list[nn.Module] = [nn.Conv2d(before, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(inplace=True)]
    if separable:
        layers += [
            nn.Conv2d(middle, middle, 3, stride=2, padding=1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU6(inplace=True),
            nn.Conv2d(middle, after, 1, bias=False),
        ]
    else:
        layers.append(nn.Conv2d(middle, after, 3, stride=2, padding=1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(after), nn.ReLU6(inplace=True))
