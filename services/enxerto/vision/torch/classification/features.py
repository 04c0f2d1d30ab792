"""Features of images under a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch

from enxerto.vision.torch.classification.images import as_batch
from enxerto.vision.torch.classification.network import GraftedNetwork
from enxerto.vision.torch.collectives import Distribution, gather_rows
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.pixel_arrays import Indices, Pixels

FEATURE_BATCH: Final = 32

Labelled = tuple[torch.Tensor, torch.Tensor]
"""Features (N, D), float32, and labels (N,), int64."""


def compute_features(
    network: GraftedNetwork,
    batches: Iterable[tuple[Pixels | torch.Tensor, Indices]],
    indices: range,
    total: int,
    *,
    where: Distribution,
    compute: Compute,
    counted: Callable[[int], None],
) -> Labelled:
    """Features and labels of a whole split, in its order, the same on every worker.

    Args:
        network: in eval mode, on the device.
        batches: this worker's pixels, (n, H, W, 3) arrays or (n, 3, H, W) tensors of uint8, and labels, in order.
        indices: positions of this worker's images in the split.
        total: images of the split.
        where: this worker's place.
        compute: device and precision.
        counted: told the images of each batch.
    """
    mine = torch.empty(len(indices), network.backbone.feature_dim, device=compute.device)
    labels = torch.empty(len(indices), dtype=torch.int64, device=compute.device)
    done = 0
    with torch.inference_mode(), compute.autocast():
        for pixels, part in batches:
            images = pixels if isinstance(pixels, torch.Tensor) else as_batch(pixels)
            rows = slice(done, done + len(part))
            mine[rows] = network.features(to_unit(images, compute))
            labels[rows] = torch.from_numpy(part)
            done += len(part)
            counted(len(part))
    if where.world_size == 1:
        return mine, labels
    places = torch.tensor(list(indices), device=compute.device)
    return gather_rows(mine, places, total, where), gather_rows(labels, places, total, where)


def to_unit(pixels: torch.Tensor, compute: Compute) -> torch.Tensor:
    """(n, 3, H, W) uint8 to float32 in [0, 1] on the device, channels last."""
    moved = pixels.to(compute.device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
