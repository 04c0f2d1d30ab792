"""What the YOLO families share: the grid of cells, padded targets, and weights of other classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from enxerto.vision.torch.detection.detector import Target
from enxerto.vision.torch.weights import LoadedWeights, WeightsCorruptError


def cells(
    sizes: Sequence[Sequence[int]], strides: Sequence[int], like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, 2) centres in input pixels, x first, and (A, 1) strides of all cells of maps with (rows, columns)."""
    centres, widths = [], []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) * stride
        x = (torch.arange(columns, device=like.device, dtype=like.dtype) + 0.5) * stride
        grid = torch.stack((x.expand(rows, columns), y.unsqueeze(1).expand(rows, columns)), dim=2)
        centres.append(grid.reshape(-1, 2))
        widths.append(torch.full((rows * columns, 1), float(stride), device=like.device, dtype=like.dtype))
    return torch.cat(centres), torch.cat(widths)


def padded(targets: Sequence[Target]) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, most) labels, -1 where there is no object, and (N, most, 4) boxes, zeros there."""
    labels = nn.utils.rnn.pad_sequence([one["labels"] for one in targets], batch_first=True, padding_value=-1)
    boxes = nn.utils.rnn.pad_sequence([one["boxes"] for one in targets], batch_first=True)
    return labels, boxes


def fill_but_head(network: nn.Module, loaded: LoadedWeights, title: str, head: str) -> None:
    """Load weights that were trained for other classes: of the head, what has another shape stays as it is.

    Args:
        network: to fill.
        loaded: its tensors.
        title: of the network, for messages.
        head: how the names of the head's tensors begin.

    Raises:
        WeightsCorruptError: a tensor before the head is missing or of another shape.
    """
    expected = network.state_dict()
    fits = {name: one for name, one in loaded.tensors.items() if name in expected and expected[name].shape == one.shape}
    wrong = [name for name in expected if name not in fits and not name.startswith(head)]
    if wrong:
        raise WeightsCorruptError(
            f"{loaded.source}: does not fit {title}; {len(wrong)} tensors are missing or of another shape, "
            f"such as {wrong[0]}"
        )
    network.load_state_dict(fits, strict=False)
