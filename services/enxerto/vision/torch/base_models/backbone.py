"""A network without its head: its stages, its pooled features, and its pyramid of feature maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple, cast

import torch
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.torch.learner import Stages

_STRIDES: Final = (2, 4, 8, 16, 32)
_PROBE: Final = (128, 192)
"""Rows and columns of the picture that the dry run looks at; unequal, so that no axis is taken for another."""


class PyramidLevel(NamedTuple):
    """One feature map.

    Attributes:
        stride: input pixels per cell.
        channels: of each cell.
        stage: index of the stage that gives it.
    """

    stride: int
    channels: int
    stage: int


class StagedBackbone(nn.Module):
    """A network without its head, whose parameters lie in named stages.

    Attributes:
        feature_dim: length of the pooled features.
    """

    def __init__(self, name: str, feature_dim: int) -> None:
        super().__init__()
        self.name = name
        self.feature_dim = feature_dim
        self._levels: tuple[PyramidLevel, ...] | None = None

    @property
    def stages(self) -> Stages:
        """Names and modules in order from input to output; what fine-tuning unfreezes, from the end."""
        raise NotImplementedError

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) standardised images to (N, feature_dim) pooled features."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As `features`."""
        return self.features(images)

    def pyramid_info(self) -> tuple[PyramidLevel, ...]:
        """The feature maps that `pyramid` gives, finest first; at most one for each stride of 2, 4, 8, 16 and 32.

        Found by a dry run, and remembered. Not every backbone has every stride: ConvNeXt begins at 4.

        Raises:
            InvalidArgumentError: the backbone has no pyramid, as a ViT, whose maps are all of one stride.
        """
        if self._levels is None:
            with _resting(self):
                parameter = next(self.parameters())
                picture = torch.zeros(1, 3, *_PROBE, device=parameter.device, dtype=parameter.dtype)
                levels = self._levels_of(picture)
            if len(levels) < 2:
                text = f"{self.name} has no feature pyramid; choose a convolutional backbone"
                raise InvalidArgumentError([Violation("encoder", text)])
            self._levels = levels
        return self._levels

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) standardised images to one (N, channels, ~H / stride, ~W / stride) map for each level.

        The last stage of each stride gives its map. Sides that are no multiple of a stride are rounded as the
        backbone's own convolutions do. Traces for `torch.onnx.export`.

        Raises:
            InvalidArgumentError: the backbone has no pyramid.
        """
        raise NotImplementedError

    def _levels_of(self, picture: torch.Tensor) -> tuple[PyramidLevel, ...]:
        """The levels that a dry run over (1, 3, H, W) finds; fewer than two when there is no pyramid."""
        raise NotImplementedError


class ChainBackbone(StagedBackbone):
    """A backbone that is a chain of stages and a pooling."""

    def __init__(self, stages: Stages, pool: nn.Module, feature_dim: int, *, name: str = "this backbone") -> None:
        super().__init__(name, feature_dim)
        self._names = tuple(name for name, _ in stages)
        self.chain = nn.Sequential(*(module for _, module in stages))
        self.pool = pool

    @property
    def stages(self) -> Stages:
        """Names and modules in order from input to output."""
        return list(zip(self._names, self.chain, strict=True))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) standardised images to (N, feature_dim) pooled features."""
        return cast(torch.Tensor, self.pool(self.chain(images)))

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) standardised images to one map for each level of `pyramid_info`."""
        wanted = {level.stage for level in self.pyramid_info()}
        maps: list[torch.Tensor] = []
        running = images
        for index, stage in enumerate(self.chain):
            if index > max(wanted):
                break
            running = stage(running)
            if index in wanted:
                maps.append(running)
        return maps

    def _levels_of(self, picture: torch.Tensor) -> tuple[PyramidLevel, ...]:
        levels: dict[int, PyramidLevel] = {}
        running = picture
        for index, stage in enumerate(self.chain):
            running = stage(running)
            stride = stride_of(running, picture)
            # What follows the first thing that is no map, such as a flattening, are no maps of the picture either.
            if stride is None:
                break
            levels[stride] = PyramidLevel(stride, running.shape[1], index)
        return in_order(levels)


def stride_of(features: torch.Tensor, picture: torch.Tensor) -> int | None:
    """Input pixels per cell of an (N, C, h, w) map, a power of two; None when it is no such map."""
    if features.dim() != 4 or min(features.shape[2:]) < 2:
        return None
    # Convolutions without padding lose a few rows and columns; the stride is still the next power of two.
    powers = [round(math.log2(whole / part)) for whole, part in zip(picture.shape[2:], features.shape[2:], strict=True)]
    return 2 ** powers[0] if powers[0] == powers[1] and powers[0] >= 0 else None


def in_order(levels: Mapping[int, PyramidLevel]) -> tuple[PyramidLevel, ...]:
    """The levels of known strides, finest first."""
    return tuple(levels[stride] for stride in _STRIDES if stride in levels)


@contextmanager
def _resting(network: nn.Module) -> Iterator[None]:
    """In eval mode without gradients, so that a dry run leaves no trace."""
    was_training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in was_training:
            module.training = True
