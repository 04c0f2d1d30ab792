"""Boxes that a detector considers, before any is suppressed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

_LARGEST_GROWTH: Final = math.log(1000.0 / 16)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Of a batch, the same number for each image.

    Attributes:
        boxes: (N, M, 4), float32, x_min, y_min, x_max, y_max in input pixels, within the input.
        scores: (N, M), float32, in [0, 1]; 0 is no box.
        classes: (N, M), int64, indices of class names.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


def every_class(boxes: torch.Tensor, scores: torch.Tensor, floor: float, limit: int) -> Candidates:
    """Each box once for each class, of which the `limit` most certain above `floor` are kept.

    Args:
        boxes: (N, A, 4), or (N, A, K, 4) when each class has a box of its own.
        scores: (N, A, K).
        floor: scores up to it count as 0.
        limit: of candidates of an image.
    """
    count = scores.shape[2]
    flat = torch.where(scores > floor, scores, torch.zeros_like(scores)).flatten(1)
    best, index = flat.topk(min(limit, flat.shape[1]), dim=1)
    row = index if boxes.dim() == 4 else torch.div(index, count, rounding_mode="floor")
    own = boxes.flatten(1, 2) if boxes.dim() == 4 else boxes
    return Candidates(own.gather(1, row.unsqueeze(2).expand(-1, -1, 4)), best, index % count)


def decode(codes: torch.Tensor, anchors: torch.Tensor, weights: tuple[float, float, float, float]) -> torch.Tensor:
    """Boxes from offsets to anchors (Girshick et al. 2014, arXiv:1311.2524, appendix C), as torchvision's `BoxCoder`.

    Args:
        codes: (..., 4).
        anchors: (..., 4), broadcast against `codes`.
        weights: that divide the codes.
    """
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size
    shift = codes[..., :2] / codes.new_tensor(weights[:2])
    growth = (codes[..., 2:] / codes.new_tensor(weights[2:])).clamp(max=_LARGEST_GROWTH)
    middle = shift * size + centre
    half = 0.5 * growth.exp() * size
    return torch.cat((middle - half, middle + half), dim=-1)


def clip(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(..., 4) boxes cut at the edges of the input."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def large_enough(boxes: torch.Tensor, smallest: float) -> torch.Tensor:
    """(...) bool: whether both sides of (..., 4) boxes are at least `smallest` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= smallest).all(dim=-1)
