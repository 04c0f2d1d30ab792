"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2)."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch.nn import functional

_LOWEST: Final = 0.05
_HIGHEST: Final = 20.0
_SPREAD: Final = 0.5
"""Standard deviation of the logarithm that is expected before anything is measured."""


def find_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """What (N, classes) logits are divided by so that their cross entropy with (N,) labels is lowest.

    1.0 unless that lowers it. No answer changes, only how sure it is. A normal prior on the logarithm, which weighs as
    much as one image, holds the temperature near 1 where there are few images: on a dozen that are all right, the
    lowest cross entropy would be at temperature 0.
    """
    logits, labels = logits.double().cpu(), labels.cpu()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], lr=0.5, max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimizer.zero_grad()
        bounded = log_temperature.clamp(math.log(_LOWEST), math.log(_HIGHEST))
        prior = (bounded / _SPREAD) ** 2 / (2 * len(labels))
        loss = functional.cross_entropy(logits / bounded.exp(), labels) + prior
        torch.autograd.backward(loss)
        return loss

    optimizer.step(cost)  # type: ignore[no-untyped-call]
    found = float(log_temperature.detach().exp().clamp(_LOWEST, _HIGHEST))
    if not math.isfinite(found):
        return 1.0
    before, after = (float(functional.cross_entropy(logits / scale, labels)) for scale in (1.0, found))
    return found if after < before else 1.0
