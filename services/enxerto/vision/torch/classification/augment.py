"""Varied and mixed training images (torchvision.transforms.v2); every draw is decided by a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torchvision.transforms import v2

from enxerto.vision.finetuning import AugmentationSpec, AugmentPolicy
from enxerto.vision.specs import PreprocessSpec


class Augmentation:
    """(n, 3, H', W') uint8 canvases to (n, 3, H, W) uint8, each with draws of its own.

    LIGHT: random crop, flip and colour. Milder than RandAugment (Cubuk et al. 2019, arXiv:1909.13719), because small
    data sets have no slack to learn that a heavily distorted picture is the same class. RANDAUGMENT: crop, flip, and
    two of RandAugment's operations.
    """

    def __init__(self, spec: AugmentationSpec, preprocess: PreprocessSpec) -> None:
        size = (preprocess.height, preprocess.width)
        crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.8, 1.25), antialias=True)
        colour: Any = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
        if spec.policy is AugmentPolicy.RANDAUGMENT:
            colour = v2.RandAugment(num_ops=2, magnitude=spec.magnitude)
        self._transform = v2.Compose([crop, v2.RandomHorizontalFlip(), colour])

    def __call__(self, canvases: torch.Tensor, *key: int) -> torch.Tensor:
        """`key` decides the draws."""
        with seeded(*key):
            return torch.stack([self._transform(canvas) for canvas in canvases])


class Mixing:
    """Mixup (Zhang et al. 2018, arXiv:1710.09412) or CutMix (Yun et al. 2019, arXiv:1905.04899), one a batch."""

    def __init__(self, spec: AugmentationSpec, classes: int) -> None:
        self._ways: Sequence[Any] = [
            way(alpha=alpha, num_classes=classes)
            for way, alpha in ((v2.MixUp, spec.mixup_alpha), (v2.CutMix, spec.cutmix_alpha))
            if alpha > 0
        ]

    def __bool__(self) -> bool:
        return bool(self._ways)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, *key: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 3, H, W) float images and (n,) labels to mixed images and (n, classes) shares of the labels."""
        with seeded(*key):
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            return cast(tuple[torch.Tensor, torch.Tensor], way(images, labels))


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draws inside are decided by the key, and change none outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield
