"""From a backbone's pyramid of feature maps to logits, for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.torch.base_models import ChainBackbone, PyramidLevel, StagedBackbone

_UNET_CHANNELS: Final = (256, 128, 64, 32, 16)
_RATES_AT_STRIDE_8: Final = (12, 24, 36)
_DILATED_STRIDE: Final = 16
_PROBE: Final = 128


class Decoder(nn.Module):
    """Feature maps, finest first, to (N, classes, h, w) logits of any size; all of it is new."""

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """`images` gives the size that the finest decoders go up to."""
        raise NotImplementedError


class _Unet(Decoder):
    """Ronneberger et al. 2015, arXiv:1505.04597, with the decoder of segmentation-models-pytorch."""

    def __init__(self, levels: Sequence[PyramidLevel], classes: int) -> None:
        super().__init__()
        channels = _UNET_CHANNELS[-len(levels) :]
        self.decoder = UnetDecoder([3, *(level.channels for level in levels)], channels, n_blocks=len(levels))
        self.head = nn.Conv2d(channels[-1], classes, 3, padding=1)

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.decoder([images, *maps])))


class _DeepLabV3Plus(Decoder):
    """Chen et al. 2018, arXiv:1802.02611, with the layers of segmentation-models-pytorch."""

    def __init__(self, levels: Sequence[PyramidLevel], classes: int) -> None:
        super().__init__()
        self._fine = _level_of(levels, 4)
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=[0, 0, levels[self._fine].channels, levels[-1].channels],
            encoder_depth=4,
            out_channels=256,
            atrous_rates=_rates(levels[-1].stride),
            output_stride=16,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
        self.head = nn.Conv2d(256, classes, 1)

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        fine = self.decoder.block1(maps[self._fine])
        # The library goes up by a fixed factor, which fits only sides that are multiples of the stride.
        coarse = _resized(self.decoder.aspp(maps[-1]), fine)
        return cast(torch.Tensor, self.head(self.decoder.block2(torch.cat([coarse, fine], dim=1))))


class _DeepLabV3(Decoder):
    """Chen et al. 2017, arXiv:1706.05587, with torchvision's head."""

    def __init__(self, levels: Sequence[PyramidLevel], classes: int) -> None:
        super().__init__()
        self.head = DeepLabHead(levels[-1].channels, classes, _rates(levels[-1].stride))

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.head(maps[-1]))


class _Fcn(Decoder):
    """Long et al. 2015, arXiv:1411.4038, with torchvision's head on dilated features."""

    def __init__(self, levels: Sequence[PyramidLevel], classes: int) -> None:
        super().__init__()
        self.head = FCNHead(levels[-1].channels, classes)

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.head(maps[-1]))


class _LrAspp(Decoder):
    """Howard et al. 2019, arXiv:1905.02244, section 6.4, with torchvision's head."""

    def __init__(self, levels: Sequence[PyramidLevel], classes: int) -> None:
        super().__init__()
        self._low = _level_of(levels, 8)
        self.head = LRASPPHead(levels[self._low].channels, levels[-1].channels, classes, 128)

    def forward(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.head({"low": maps[self._low], "high": maps[-1]}))


_DECODERS: Final[Mapping[str, Callable[[Sequence[PyramidLevel], int], Decoder]]] = {
    "unet": _Unet,
    "deeplabv3plus": _DeepLabV3Plus,
    "deeplabv3": _DeepLabV3,
    "fcn": _Fcn,
    "lraspp": _LrAspp,
}

FAMILIES: Final = tuple(_DECODERS)
"""Base models that take any encoder with a pyramid."""


def build_decoder(family: str, backbone: StagedBackbone, classes: int) -> Decoder:
    """A decoder with random weights for a backbone; all but U-Net dilate the backbone's last stages first.

    Raises:
        InvalidArgumentError: the family has no decoder here, or the backbone no pyramid.
    """
    if family not in _DECODERS:
        raise InvalidArgumentError([Violation("base_model", f"{family} has no decoder for an encoder")])
    if family != "unet":
        dilate(backbone)
    return _DECODERS[family](backbone.pyramid_info(), classes)


def dilate(backbone: StagedBackbone) -> bool:
    """Keep a stride of 16 to the end: later strides become dilations; whether that was possible.

    So the same weights look at the same surroundings of more places (Chen et al. 2017, arXiv:1706.05587, section 3.1).
    Backbones that shrink by pooling or by convolutions without overlap stay as they are, at a stride of 32. Call it
    before the backbone's pyramid is asked for.
    """
    if not isinstance(backbone, ChainBackbone):
        return False
    coarse = _stages_beyond(backbone, _DILATED_STRIDE)
    if not coarse or not all(_can_dilate(module) for stage in coarse for module in stage.modules()):
        return False
    for module in (module for stage in coarse for module in stage.modules()):
        if isinstance(module, nn.Conv2d):
            rows, columns = module.kernel_size
            module.stride, module.dilation = (1, 1), (2, 2)
            # timm's convolutions of TensorFlow's networks pad by themselves.
            if type(module) is nn.Conv2d:
                module.padding = (rows // 2 * 2, columns // 2 * 2)
    return True


def _stages_beyond(backbone: ChainBackbone, stride: int) -> list[nn.Module]:
    """The stages that give maps of a larger stride."""
    beyond: list[nn.Module] = []
    running = torch.zeros(1, 3, _PROBE, _PROBE)
    with torch.no_grad():
        for stage in backbone.chain:
            running = stage(running)
            if running.dim() != 4 or running.shape[-1] < 2:
                return []
            if running.shape[-1] < _PROBE // stride:
                beyond.append(stage)
    return beyond


def _can_dilate(module: nn.Module) -> bool:
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return False
    return not isinstance(module, nn.Conv2d) or (all(side % 2 == 1 for side in module.kernel_size))


def _rates(stride: int) -> tuple[int, ...]:
    """The paper's atrous rates, which cover the same part of the picture at every stride."""
    return tuple(max(1, rate * 8 // stride) for rate in _RATES_AT_STRIDE_8)


def _level_of(levels: Sequence[PyramidLevel], stride: int) -> int:
    """Index of the first level at least as coarse."""
    return next((index for index, level in enumerate(levels) if level.stride >= stride), len(levels) - 1)


def _resized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)
