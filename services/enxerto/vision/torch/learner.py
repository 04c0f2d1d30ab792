"""What a task supplies so that the engine can train it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

Stages = Sequence[tuple[str, nn.Module]]
"""Names and modules in order from input to output."""

Batch = Any
"""What a learner's own `batches` yields and its `loss` takes; opaque to the engine."""


@dataclass(frozen=True, slots=True)
class Score:
    """Of the validation split, over all workers.

    Attributes:
        value: the task's own metric, higher is better: accuracy, mAP@[.5:.95], mIoU; for STYLE minus the loss.
        loss: mean, lower is better; decides between equal values.
        metrics: more numbers to show, by stable snake-case name; holds `value` under the metric's name.
    """

    value: float
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def beats(self, other: Score | None) -> bool:
        """A higher value, or as high with a lower loss; what is not finite beats nothing."""
        if not (math.isfinite(self.value) and math.isfinite(self.loss)):
            return False
        return other is None or (self.value, -self.loss) > (other.value, -other.loss)


class Learner(Protocol):
    """One task's network, its data and its loss. One object on each worker.

    With several workers every worker's `batches` yields the same number of batches.
    """

    @property
    def network(self) -> nn.Module:
        """All that is trained, averaged and saved; on the device; always the same object, an attribute will do.

        What is frozen stays in eval mode: the engine decides.
        """
        ...

    @property
    def stages(self) -> Stages:
        """The pretrained backbone's stages from input to output; "the last N" are counted from the end.

        The modules may be made anew each time, of the same parts of the network.
        """
        ...

    @property
    def heads(self) -> Sequence[nn.Module]:
        """New modules, which always learn at the full rate."""
        ...

    @property
    def train_count(self) -> int:
        """Training images over all workers."""
        ...

    def batch_count(self, size: int) -> int:
        """Batches of an epoch, of `size` images on this worker; the same on every worker."""
        ...

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """This worker's batches of an epoch with their numbers of images, shuffled and augmented, from `start` on.

        The same epoch, seed and rank always give the same batches, whatever came before: a resumed run sees what an
        unbroken one would have seen.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch, scalar. `model` is `network`, perhaps wrapped for several workers; call that one."""
        ...

    def validate(self) -> Score:
        """Score `network` on the validation split; collective, the same on every worker."""
        ...
