"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Final

from enxerto.vision.finetuning import Optimizer
from enxerto.vision.torch.collectives import sum_over_workers
from enxerto.vision.torch.engine.layers import Layers
from enxerto.vision.torch.engine.steps import Stepper
from enxerto.vision.torch.learner import Batch, Learner
from enxerto.vision.torch.recipe import Job

_STEPS: Final = 60
_LOWEST: Final = 1e-6
_HIGHEST: Final = {Optimizer.ADAMW: 1.0, Optimizer.SGD: 10.0}
_SMOOTHING: Final = 0.9
_RUINED: Final = 4.0
_EPOCH: Final = 1_000_000
"""Of the test's first batches, far from those of training."""


def find_learning_rate(learner: Learner, job: Job, layers: Layers, *, size: int, exchanges: bool) -> float | None:
    """The rate of the heads at which the loss is lowest while the rate grows step by step, divided by ten.

    `size` is of this worker's batches. The weights are as before afterwards. None when the loss never fell.
    """
    before = {name: tensor.detach().clone() for name, tensor in learner.network.state_dict().items()}
    stepper = Stepper(learner, job, layers, 1.0, exchanges=exchanges)
    stepper.prepare(1)
    highest = _HIGHEST[job.spec.optimizer]
    smooth = 0.0
    losses: list[float] = []
    rates: list[float] = []
    for step, batch in enumerate(islice(_batches(learner, size), _STEPS)):
        rate = _LOWEST * (highest / _LOWEST) ** (step / (_STEPS - 1))
        stepper.set_rate(rate)
        loss = float(sum_over_workers(stepper.accumulate(batch, of=1), job.where)) / job.where.world_size
        stepper.update()
        smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        corrected = smooth / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(corrected) or (losses and corrected > _RUINED * min(losses)):
            break
        losses.append(corrected)
        rates.append(rate)
    learner.network.load_state_dict(before)
    if not losses or min(losses) >= losses[0]:
        return None
    return rates[losses.index(min(losses))] / 10


def _batches(learner: Learner, size: int) -> Iterator[Batch]:
    epoch = _EPOCH
    while True:
        for batch, _ in learner.batches(epoch, size):
            yield batch
        epoch += 1
