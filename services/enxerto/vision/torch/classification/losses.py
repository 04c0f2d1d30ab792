"""What classification minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from enxerto.vision.finetuning import ClassWeights, LossSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(N, classes) float32 logits, and (N,) labels or (N, classes) shares of them, to a scalar."""


def make_loss(spec: LossSpec, counts: torch.Tensor) -> Loss:
    """Cross entropy, smoothed and weighted as asked, or its focal variant (Lin et al. 2017, arXiv:1708.02002).

    BALANCED weights are N / (classes present x images of the class), so that their mean over the images is 1. The
    focal factor (1 - p)^gamma is of the probability of each label, and mixed labels count by their shares.

    Args:
        spec: what is asked for.
        counts: (classes,), training images of each class.
    """
    weights: torch.Tensor | None = None
    if spec.class_weights is ClassWeights.BALANCED:
        weights = counts.sum() / (counts.count_nonzero() * counts.clamp_min(1)).float()

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = None if weights is None else weights.to(logits.device)
        if spec.focal_gamma == 0:
            return functional.cross_entropy(logits, targets, weight, label_smoothing=spec.label_smoothing)
        classes = logits.shape[1]
        shares = functional.one_hot(targets, classes).float() if targets.ndim == 1 else targets
        shares = shares * (1 - spec.label_smoothing) + spec.label_smoothing / classes
        if weight is not None:
            shares = shares * weight
        logs = functional.log_softmax(logits, dim=1)
        return -(shares * (1 - logs.exp()).pow(spec.focal_gamma) * logs).sum(dim=1).mean()

    return loss
