"""What segmentation minimises: cross entropy or focal loss of the pixels, and Dice of the classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from enxerto.vision.contracts import IGNORED
from enxerto.vision.finetuning import LossSpec
from enxerto.vision.torch.segmentation.masked_pictures import MaskedPictures

_SMOOTH = 1.0
_COUNTED_AT_ONCE = 64


class MaskLoss(nn.Module):
    """Cross entropy (or focal loss) + Dice, one to one as in nnU-Net (Isensee et al. 2021, arXiv:1809.10486).

    Cross entropy alone neglects classes of few pixels; Dice alone has noisy gradients. Label smoothing, class weights
    and the focal exponent are the first term's. Pixels of 255 count in neither.
    """

    weight: torch.Tensor | None

    def __init__(self, spec: LossSpec, weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self._smoothing = spec.label_smoothing
        self._gamma = spec.focal_gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """(N, classes, H, W) logits and (N, H, W) int64 masks to a scalar; 0 when every pixel is ignored."""
        return self._pixels(logits, masks) + dice_loss(logits, masks)

    def _pixels(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(
            logits, masks, weight=self.weight, ignore_index=IGNORED, reduction="none", label_smoothing=self._smoothing
        )
        kept = masks != IGNORED
        if self._gamma > 0:
            # Lin et al. 2017, arXiv:1708.02002: easy pixels count little.
            plain = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")
            losses = losses * (1 - torch.exp(-plain)).pow(self._gamma)
        share = kept.float() if self.weight is None else self.weight[masks.where(kept, 0)] * kept
        return losses.sum() / share.sum().clamp_min(1e-6)


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 - the soft Dice of the classes that are in the batch, mean (Milletari et al. 2016, arXiv:1606.04797).

    Over all pixels of the batch at once: a class that one picture lacks is not punished there by a whole point.
    """
    kept = (masks != IGNORED).unsqueeze(1)
    truth = functional.one_hot(masks.where(kept.squeeze(1), 0), logits.shape[1]).permute(0, 3, 1, 2) * kept
    probabilities = logits.softmax(dim=1) * kept
    both, true, found = (
        (probabilities * truth).sum(dim=(0, 2, 3)),
        truth.sum(dim=(0, 2, 3)).to(logits.dtype),
        probabilities.sum(dim=(0, 2, 3)),
    )
    occurs = (true > 0).to(logits.dtype)
    losses = 1 - (2 * both + _SMOOTH) / (true + found + _SMOOTH)
    return (losses * occurs).sum() / occurs.sum().clamp_min(1)


def count_classes(pictures: MaskedPictures, classes: int) -> torch.Tensor:
    """(classes,) float64: pixels of each class in this worker's part."""
    counts = np.zeros(256, np.int64)
    for first in range(0, len(pictures), _COUNTED_AT_ONCE):
        counts += np.bincount(pictures.masks[first : first + _COUNTED_AT_ONCE].ravel(), minlength=256)
    return torch.from_numpy(counts[:classes]).double()


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """(classes,) pixels to weights of mean 1: 1 / ln(1.02 + share of the pixels).

    ENet's (Paszke et al. 2016, arXiv:1606.02147, section 5.1). It is bounded, which the plain inverse is not: a class
    of one pixel in a thousand would count a thousand times as much.
    """
    weights = 1 / torch.log(1.02 + counts / counts.sum().clamp_min(1))
    return (weights / weights.mean()).float()
