"""How a picture differs from another's content and another's style, as a pretrained network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import nn

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import StagedBackbone

_STYLE_STRIDES: Final = (2, 4, 8, 16)
_CONTENT_STRIDE: Final = 8
_TINY: Final = 1e-12


class StyleLosses(NamedTuple):
    """Of a batch of pictures, scalars.

    Attributes:
        content: squared difference of features / squared features of the content picture.
        style: squared difference of Gram matrices / squared Gram matrices of the style picture, mean of the levels.
        total_variation: mean squared difference of neighbouring pixels.
    """

    content: torch.Tensor
    style: torch.Tensor
    total_variation: torch.Tensor


class LossNetwork(nn.Module):
    """A frozen backbone whose feature maps pictures are compared by.

    Gram matrices of four levels are the style and one level is the content (Gatys et al. 2016, "Image Style Transfer
    Using Convolutional Neural Networks", section 2; Johnson et al. 2016, arXiv:1603.08155, section 3.2). Both papers
    take VGG's layers before pooling; here it is each stage's output, as for textures in Gatys et al. 2015,
    arXiv:1505.07376, so that any backbone with a pyramid will do.

    Every loss is relative to the picture that it is measured against. VGG's features are thousands of times as large
    as EfficientNet's; without that, no weight would fit both.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: StagedBackbone, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))
        strides = [level.stride for level in backbone.pyramid_info()]
        self._style = [index for index, stride in enumerate(strides) if stride in _STYLE_STRIDES]
        self._content = next((i for i, stride in enumerate(strides) if stride >= _CONTENT_STRIDE), len(strides) - 1)
        self.requires_grad_(False).eval()

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] to feature maps, finest first."""
        return self.backbone.pyramid((pictures - self.mean) / self.std)

    def grams(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """(N, C, C) of every style level."""
        return [gram(maps[index]) for index in self._style]

    def losses(
        self, pictures: torch.Tensor, content: Sequence[torch.Tensor], style: Sequence[torch.Tensor]
    ) -> StyleLosses:
        """Compare (N, 3, H, W) pictures in [0, 1] with the maps of their contents and the style picture's Grams."""
        maps = self.maps(pictures)
        found, wanted = maps[self._content].float(), content[self._content].float()
        levels = [_relative(mine, theirs) for mine, theirs in zip(self.grams(maps), style, strict=True)]
        return StyleLosses(_relative(found, wanted), torch.stack(levels).mean(), total_variation(pictures))


def gram(maps: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, C, C) products of channels, mean over the places, in float32."""
    flat = maps.float().flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def total_variation(pictures: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels of (N, 3, H, W) pictures in [0, 1]."""
    down = pictures[:, :, 1:] - pictures[:, :, :-1]
    right = pictures[:, :, :, 1:] - pictures[:, :, :, :-1]
    return down.square().mean() + right.square().mean()


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean over the pictures of the squared difference / the squared size of what is wanted."""
    axes = tuple(range(1, found.dim()))
    size = wanted.square().sum(dim=axes).clamp_min(_TINY)
    return ((found - wanted).square().sum(dim=axes) / size).mean()
