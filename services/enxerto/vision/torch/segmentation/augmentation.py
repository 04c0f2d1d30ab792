"""Variation of training pictures whose masks follow."""

from __future__ import annotations

from typing import Final

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from enxerto.vision.contracts import IGNORED
from enxerto.vision.specs import LETTERBOX_GREY, PreprocessSpec

_SCALES: Final = (0.75, 1.5)


class MaskedAugmentation:
    """Scale, crop, flip and colour: uint8 pictures (n, 3, H, W) and masks (n, H, W) to the same shapes.

    Jitter of the scale, then a crop of the input's size, is what semantic segmentation is trained with since DeepLab
    (Chen et al. 2017, arXiv:1706.05587, section 4.1); their range of 0.5 to 2 is narrowed, because small datasets have
    no slack. A border that the crop adds is grey, and its mask 255, so that nothing is learned there.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        size = (spec.height, spec.width)
        self._transform = v2.Compose(
            [
                v2.ScaleJitter(size, scale_range=_SCALES, antialias=True),
                v2.RandomCrop(
                    size, pad_if_needed=True, fill={tv_tensors.Image: LETTERBOX_GREY, tv_tensors.Mask: IGNORED}
                ),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            ]
        )

    def __call__(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each picture gets draws of its own, decided by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = [
                self._transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
                for image, mask in zip(images, masks, strict=True)
            ]
        return (
            torch.stack([image.as_subclass(torch.Tensor) for image, _ in pairs]),
            torch.stack([mask.as_subclass(torch.Tensor) for _, mask in pairs]),
        )
