"""Variation of content pictures."""

from __future__ import annotations

from typing import Final

import torch
from torchvision.transforms import v2

_SCALES: Final = (0.25, 1.0)


class ContentAugmentation:
    """Crop, mirror and colour: uint8 squares (n, 3, side, side) to the same shape.

    Whatever a picture becomes is a picture still, and its own content to be kept. So variation costs no truth here and
    is strong: without it the network learns a dozen pictures by heart, and gives others neither style nor content.
    """

    def __init__(self, side: int) -> None:
        colour = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(side, scale=_SCALES, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([colour], p=0.8),
            ]
        )

    def __call__(self, pictures: torch.Tensor, seed: int) -> torch.Tensor:
        """Each picture gets draws of its own, decided by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.stack([self._transform(picture) for picture in pictures])
