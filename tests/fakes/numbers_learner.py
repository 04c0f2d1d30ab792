"""A learner of a few numbers, to drive the training loop with."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from enxerto.vision.finetuning import FinetuneSpec, StopSpec, Strategy
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.learner import Score
from enxerto.vision.torch.recipe import Job

Pair = tuple[torch.Tensor, torch.Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(self.second(self.first(inputs))))


class NumbersLearner:
    """Tells whether the sum of four numbers is positive."""

    train_count = 64

    def __init__(self) -> None:
        self.network = Net()
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(64, 4, generator=generator)
        self.labels = (self.inputs.sum(1) > 0).long()
        self.validated: list[dict[str, torch.Tensor]] = []

    @property
    def stages(self) -> Sequence[tuple[str, nn.Module]]:
        return [("first", self.network.first), ("second", self.network.second)]

    @property
    def heads(self) -> Sequence[nn.Module]:
        return [self.network.head]

    def batch_count(self, size: int) -> int:
        return math.ceil(self.train_count / size)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Pair, int]]:
        order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for rows in torch.split(order[start * size :], size):
            yield (self.inputs[rows], self.labels[rows]), len(rows)

    def loss(self, model: nn.Module, batch: Pair) -> torch.Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def validate(self) -> Score:
        assert not self.network.training
        self.validated.append({k: v.clone() for k, v in self.network.state_dict().items()})
        with torch.inference_mode():
            logits = self.network(self.inputs)
        right = float((logits.argmax(1) == self.labels).float().mean())
        return Score(right, float(functional.cross_entropy(logits, self.labels)), {"accuracy": right})


def a_spec(**values: Any) -> FinetuneSpec:
    """FINE_TUNE in small steps, with nothing that ends it early."""
    return FinetuneSpec.with_defaults(
        **{
            "strategy": Strategy.FINE_TUNE,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "backbone_learning_rate_ratio": 0.5,
            "stop": StopSpec(),
            **values,
        },
    )


def a_job(spec: FinetuneSpec, **values: Any) -> Job:
    """One worker, one thread, and no data but the learner's own."""
    given = {"facts": None, "manifest": SimpleNamespace(), "blobs": None, "sources": None, **values}
    return Job(spec=spec, where=Distribution(), compute=Compute("cpu", None, 1), **given)
