"""Optimizers, the learning-rate schedule and the choice of the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from enxerto.vision.finetuning import FinetuneSpec, Optimizer

_MOMENTUM = 0.9


def warmup_cosine(total_steps: int, warmup_fraction: float) -> Callable[[int], float]:
    """Factor of the peak rate at each step: linear growth, then half a cosine down to 0.

    Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    warmup = round(total_steps * warmup_fraction)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total_steps - warmup))))

    return factor


def make_optimizer(spec: FinetuneSpec, head: nn.Module, backbone: list[nn.Parameter]) -> torch.optim.Optimizer:
    """One group for the head (first) and one for the backbone; biases and norms are not decayed."""
    groups: list[dict[str, Any]] = []
    ratio = spec.backbone_learning_rate_ratio
    for parameters, rate in ((list(head.parameters()), 1.0), (backbone, ratio)):
        for decays in (True, False):
            chosen = [p for p in parameters if p.requires_grad and (p.ndim > 1) is decays]
            if chosen:
                decay = spec.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": spec.learning_rate * rate, "weight_decay": decay})
    if spec.optimizer is Optimizer.SGD:
        return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=spec.learning_rate)


@dataclass(frozen=True, slots=True)
class Score:
    """Of a split: mean cross entropy in nats, and accuracy in [0, 1]."""

    loss: float
    accuracy: float

    def beats(self, other: Score | None) -> bool:
        """More accurate, or as accurate with a lower loss."""
        if other is None:
            return True
        if math.isnan(self.loss):
            return False
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class BestEpoch:
    """Keeps a copy of what was best, and says when to stop waiting for better."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._since = 0
        self.score: Score | None = None
        self.epoch = 0
        self.state: dict[str, torch.Tensor] = {}

    def offer(self, score: Score, epoch: int, module: nn.Module) -> None:
        """Compare; copy the module's tensors when it is the best so far."""
        self._since += 1
        if score.beats(self.score):
            self.score, self.epoch, self._since = score, epoch, 0
            self.state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @property
    def should_stop(self) -> bool:
        """Whether patience is over."""
        return 0 < self._patience <= self._since
