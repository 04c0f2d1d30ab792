"""One step of training: forward, backward, clip, update; on one worker or in step with others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from enxerto.vision.torch.engine.layers import Layers
from enxerto.vision.torch.learner import Batch, Learner
from enxerto.vision.torch.recipe import Job


class Stepper:
    """Moves a learner's weights. The learning rates are set by `set_rate` before each update.

    `exchanges` is whether the workers' gradients are averaged.
    """

    def __init__(self, learner: Learner, job: Job, layers: Layers, learning_rate: float, *, exchanges: bool) -> None:
        self._learner = learner
        self._job = job
        self._layers = layers
        self._model: nn.Module = learner.network
        self._learning: list[nn.Parameter] = []
        self._pending = 0
        self._exchanges = exchanges
        self.optimizer = layers.make_optimizer(learning_rate)
        self._peaks = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(job.compute.device, enabled=job.compute.scales_gradients)

    def prepare(self, epoch: int) -> None:
        """Freeze and unfreeze for an epoch, and bring everything into its mode."""
        changed = self._layers.unfreeze(epoch)
        if changed or not self._learning:
            network = self._learner.network
            self._learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
            # The wrapper looks once at what has gradients.
            self._model = self._wrapped(network)
        self._layers.train_mode(epoch)
        self._pending = 0

    def set_rate(self, factor: float) -> None:
        """Every group's rate is its peak times the factor."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    @property
    def rate(self) -> float:
        """Of the heads, now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def accumulate(self, batch: Batch, *, of: int) -> torch.Tensor:
        """Add a batch's gradients, one `of` so many before an update; its mean loss, detached."""
        if self._pending == 0:
            self.optimizer.zero_grad()
        self._pending += 1
        with self._gradients(exchange=self._pending == of):
            with self._job.compute.autocast():
                loss = self._learner.loss(self._model, batch)
            torch.autograd.backward(self.scaler.scale(loss / of if of > 1 else loss))
        return loss.detach()

    def update(self) -> None:
        """Change the weights by what was accumulated."""
        self._pending = 0
        limit = self._job.spec.gradient_clip_norm
        if limit > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learning, limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _wrapped(self, network: nn.Module) -> nn.Module:
        if not self._exchanges:
            return network
        device = self._job.compute.device
        return DistributedDataParallel(network, device_ids=[device] if device.startswith("cuda") else None)

    @contextlib.contextmanager
    def _gradients(self, *, exchange: bool) -> Iterator[None]:
        if exchange or not isinstance(self._model, DistributedDataParallel):
            yield
            return
        with self._model.no_sync():
            yield
