"""Structural similarity of two pictures."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional

_WINDOW: Final = 11
_SIGMA: Final = 1.5
_C1: Final = 0.01**2
_C2: Final = 0.03**2


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity of (N, 3, H, W) pictures in [0, 1] to others: (N,), at most 1.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", with their constants
    and Gaussian window of 11 x 11 pixels, on the three colours; the window is smaller where the picture is.
    """
    size = min(_WINDOW, *first.shape[-2:])
    size -= 1 - size % 2
    # Variances are differences of large numbers.
    one, other = first.double(), second.double()
    mean_one, mean_other = _blurred(one, size), _blurred(other, size)
    variance_one = _blurred(one * one, size) - mean_one.square()
    variance_other = _blurred(other * other, size) - mean_other.square()
    covariance = _blurred(one * other, size) - mean_one * mean_other
    top = (2 * mean_one * mean_other + _C1) * (2 * covariance + _C2)
    bottom = (mean_one.square() + mean_other.square() + _C1) * (variance_one + variance_other + _C2)
    return (top / bottom).mean(dim=(1, 2, 3)).float()


def _blurred(pictures: torch.Tensor, size: int) -> torch.Tensor:
    places = torch.arange(size, dtype=pictures.dtype, device=pictures.device) - size // 2
    weights = torch.exp(-places.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    channels = pictures.shape[1]
    rows = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(pictures, rows, groups=channels), columns, groups=channels)
