"""The network that gives any picture one style in a single pass."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional


class TransformerNetwork(nn.Module):
    """(N, 3, H, W) pictures in [0, 1] to pictures likewise; H and W are multiples of 8.

    Johnson et al. 2016, arXiv:1603.08155 (supplement): two reductions, residual blocks, two enlargements. With
    instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022), and enlarged by the nearest pixel before a plain
    convolution, which leaves no checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts").
    The last convolution sees the picture too, so that the network need not learn to carry it through.
    """

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.down = nn.Sequential(
            _Convolution(3, width, 9), _Convolution(width, 2 * width, 3, stride=2),
            _Convolution(2 * width, 4 * width, 3, stride=2),
        )  # fmt: skip
        self.middle = nn.Sequential(*(_Residual(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(_Enlarging(4 * width, 2 * width), _Enlarging(2 * width, width))
        self.last = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(width + 3, 3, 9))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, H, W) in [0, 1]."""
        centred = 2 * images - 1
        maps = self.up(self.middle(self.down(centred)))
        return torch.sigmoid(self.last(torch.cat([maps, centred], dim=1)))


class _Convolution(nn.Module):
    def __init__(self, channels: int, out: int, size: int, *, stride: int = 1, active: bool = True) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(size // 2)
        self.conv = nn.Conv2d(channels, out, size, stride)
        self.norm = nn.InstanceNorm2d(out, affine=True)
        self.active = active

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        normed = cast(torch.Tensor, self.norm(self.conv(self.pad(maps))))
        return functional.relu(normed) if self.active else normed


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Convolution(channels, channels, 3)
        self.second = _Convolution(channels, channels, 3, active=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + cast(torch.Tensor, self.second(self.first(maps)))


class _Enlarging(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = _Convolution(channels, out, 3)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.conv(functional.interpolate(maps, scale_factor=2.0, mode="nearest")))
