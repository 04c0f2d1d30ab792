"""Moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage:
    """Exponential average of a network's parameters; its buffers are the network's own.

    The first steps count more, as min(decay, (1 + n) / (10 + n)): with a decay of 0.999 the average of a short run
    would else still be its start (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.average = AveragedModel(network, multi_avg_fn=self._blend)

    def update(self) -> None:
        """Count a step."""
        self.average.update_parameters(self._network)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside, and its own weights again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()}
        self._network.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    @torch.no_grad()
    def _blend(
        self, averages: Sequence[torch.Tensor], currents: Sequence[torch.Tensor], count: torch.Tensor | int
    ) -> None:
        done = int(count)
        decay = min(self._decay, (1 + done) / (10 + done))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)
