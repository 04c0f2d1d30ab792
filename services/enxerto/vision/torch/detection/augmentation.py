"""Variation of training pictures whose boxes follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from enxerto.vision.specs import LETTERBOX_GREY, PreprocessSpec
from enxerto.vision.torch.detection.detector import Target

_SMALLEST: Final = 2
"""Pixels; what a crop leaves of an object below that shows nothing of it."""


class BoxedAugmentation:
    """Expansion, crop, flip and colour: uint8 (n, 3, H, W) pictures and their boxes to the same shapes.

    SSD's expansion and crop (Liu et al. 2016, arXiv:1512.02325, section 2.2) in a narrower range, because small
    datasets have no slack to learn that half of a distorted object is still one. A border is grey.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self._crop = v2.RandomIoUCrop(
            min_scale=0.5,
            max_scale=1.0,
            min_aspect_ratio=0.75,
            max_aspect_ratio=4 / 3,
            # Not the paper's 0.7 and 0.9 as well: no crop overlaps a small object so much, and nothing would be cut.
            sampler_options=[0.0, 0.1, 0.3, 0.5, 1.0],
            trials=20,
        )
        self._expand = v2.RandomZoomOut(fill=LETTERBOX_GREY, side_range=(1.0, 1.5), p=0.3)
        self._rest = v2.Compose(
            [
                v2.Resize((spec.height, spec.width), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                v2.SanitizeBoundingBoxes(min_size=_SMALLEST),
            ]
        )

    def __call__(self, images: torch.Tensor, targets: Sequence[Target], seed: int) -> tuple[torch.Tensor, list[Target]]:
        """Each picture gets draws of its own, decided by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = [self._vary(image, target) for image, target in zip(images, targets, strict=True)]
        return torch.stack([image for image, _ in pairs]), [target for _, target in pairs]

    def _vary(self, image: torch.Tensor, target: Target) -> tuple[torch.Tensor, Target]:
        size = (image.shape[1], image.shape[2])
        # torchvision's names are "boxes" and "labels" too, which is how boxes that are dropped lose their labels.
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        sample = (tv_tensors.Image(image), {"boxes": boxes, "labels": target["labels"]})
        # The crop looks for a part with objects in it, and would look in vain where there are none.
        steps = [self._expand, self._crop, self._rest] if len(boxes) else [self._rest]
        for step in steps:
            sample = step(*sample)
        varied, known = sample
        return varied.as_subclass(torch.Tensor), {
            "boxes": known["boxes"].as_subclass(torch.Tensor).float(),
            "labels": known["labels"],
        }
