"""Which parts of a network learn in an epoch, in which mode they are, and at which rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from enxerto.vision.finetuning import BatchNorm, FinetuneSpec, Optimizer, Weights
from enxerto.vision.torch.learner import Learner

_MOMENTUM: Final = 0.9


class Layers:
    """The network's stages and heads as the spec wants them trained.

    Statistics of batch norm stay those of the pretrained weights wherever these are used, in stages that learn too:
    small batches of a small data set estimate them worse than ImageNet did.
    """

    def __init__(self, learner: Learner, spec: FinetuneSpec, *, trains_backbone: bool) -> None:
        self._learner = learner
        self._spec = spec
        # Asked for once: a stage may be a wrapper that is made for the occasion, and no two of those are the same.
        self._stages = [module for _, module in learner.stages]
        wanted = spec.unfreezing.stages or len(self._stages)
        self.tuned: Sequence[nn.Module] = self._stages[-wanted:] if trains_backbone and self._stages else ()
        learned = spec.batch_norm is BatchNorm.LEARNED
        if spec.batch_norm is BatchNorm.AUTO:
            learned = spec.weights is Weights.NONE
        self.learns_statistics = learned

    def learning(self, epoch: int) -> Sequence[nn.Module]:
        """The stages that learn in an epoch, from input to output; all of them in the last epochs."""
        plan = self._spec.unfreezing
        if epoch <= plan.head_warmup_epochs:
            return ()
        if plan.epochs_per_stage == 0:
            return self.tuned
        count = 1 + (epoch - plan.head_warmup_epochs - 1) // plan.epochs_per_stage
        return self.tuned[-count:]

    @property
    def complete_from(self) -> int:
        """The epoch from which on all learn that learn at any time, from 1."""
        plan = self._spec.unfreezing
        if not self.tuned:
            return 1
        return plan.head_warmup_epochs + 1 + max(len(self.tuned) - 1, 0) * plan.epochs_per_stage

    def unfreeze(self, epoch: int) -> bool:
        """Let what learns in the epoch have gradients; whether that is different from before."""
        before = [parameter.requires_grad for parameter in self._learner.network.parameters()]
        self._learner.network.requires_grad_(False)
        for module in (*self._learner.heads, *self.learning(epoch)):
            module.requires_grad_(True)
        return before != [parameter.requires_grad for parameter in self._learner.network.parameters()]

    def train_mode(self, epoch: int) -> None:
        """Train mode for what learns; whatever is frozen computes as in serving."""
        network, learning = self._learner.network, self.learning(epoch)
        network.train()
        for stage in self._stages:
            if not any(stage is one for one in learning):
                stage.eval()
        free = set(_norms(self._learner.heads))
        if self.learns_statistics:
            free.update(_norms(learning))
        for norm in _norms([network]):
            if norm not in free:
                norm.eval()

    def make_optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """The heads (first) and each stage that learns at any time, of the rate of its depth.

        Biases and the parameters of norms are not decayed. Parameters that appear twice count to the first.
        """
        spec = self._spec
        rates = [spec.backbone_learning_rate_ratio * spec.stage_learning_rate_decay**i for i in range(len(self.tuned))]
        stages = [([module], rate) for module, rate in zip(reversed(self.tuned), rates, strict=True)]
        parts = [(list(self._learner.heads), 1.0), *stages]
        # Stages of one rate share a group: an update is a handful of large operations for each group.
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        seen: set[int] = set()
        for modules, rate in parts:
            for parameter in (one for module in modules for one in module.parameters()):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
        made = [
            {"params": found, "lr": learning_rate * rate, "weight_decay": spec.weight_decay if decays else 0.0}
            for (rate, decays), found in groups.items()
        ]
        if spec.optimizer is Optimizer.SGD:
            return torch.optim.SGD(made, lr=learning_rate, momentum=_MOMENTUM, nesterov=True)
        return torch.optim.AdamW(made, lr=learning_rate)

    @property
    def statistics(self) -> str:
        """What is done with batch norm, for people."""
        if not self.tuned:
            return "frozen: the backbone is not trained"
        return "learned in stages that learn" if self.learns_statistics else "frozen in every stage"


def _norms(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    return (one for module in modules for one in module.modules() if isinstance(one, _BatchNorm))
