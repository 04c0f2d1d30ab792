"""Fast style transfer as the engine trains it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from enxerto.vision.finetuning import AugmentPolicy, FinetuneSpec
from enxerto.vision.torch.collectives import Distribution, sum_over_workers
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.epochs import batch_count
from enxerto.vision.torch.feeding import Feed
from enxerto.vision.torch.learner import Batch, Score, Stages
from enxerto.vision.torch.style.augmentation import ContentAugmentation
from enxerto.vision.torch.style.objective import Objective, loss_values
from enxerto.vision.torch.style.perception import StyleLosses
from enxerto.vision.torch.style.pictures import ContentPictures
from enxerto.vision.torch.style.similarity import ssim
from enxerto.vision.torch.style.transformer import TransformerNetwork

_VALIDATION_BATCH: Final = 4


class StyleLearner:
    """A transformer network, content pictures and the perceptual loss."""

    network: nn.Module

    def __init__(
        self,
        network: TransformerNetwork,
        objective: Objective,
        train: ContentPictures,
        val: ContentPictures,
        spec: FinetuneSpec,
        *,
        where: Distribution,
        compute: Compute,
    ) -> None:
        self.network = network.to(compute.device)
        self._objective, self._train, self._val = objective, train, val
        self._spec, self._where, self._compute = spec, where, compute
        varies = spec.augmentation.policy is not AugmentPolicy.NONE
        self._feed = Feed(partial(_load, train, ContentAugmentation(train.side) if varies else None), compute)

    @property
    def stages(self) -> Stages:
        """None: nothing of this network is pretrained."""
        return ()

    @property
    def heads(self) -> Sequence[nn.Module]:
        """The whole network."""
        return (self.network,)

    @property
    def train_count(self) -> int:
        """Content pictures over all workers."""
        return self._train.total

    def batch_count(self, size: int) -> int:
        """Batches of an epoch; by the longest part, so that no worker waits for another."""
        return batch_count(self.train_count, size, self._where)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """(n, 3, H, W) uint8 pictures, varied unless augmentation is NONE."""
        generator = np.random.default_rng((self._spec.seed, epoch, self._where.rank))
        order = generator.permutation(len(self._train))
        count = self.batch_count(size)
        longest = math.ceil(self.train_count / self._where.world_size)
        order = np.resize(order, longest)
        parts = [order[step * size : (step + 1) * size] for step in range(count)]
        plan = [(rows, int(generator.integers(2**63))) for rows in parts]
        for pictures in self._feed.follow(plan[start:]):
            yield pictures, len(pictures)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch."""
        contents = self._to_unit(batch)
        return self._objective.total(self._objective.measure(model(contents).float(), contents))

    def validate(self) -> Score:
        """Minus the loss over the validation split."""
        sums = torch.zeros(5, dtype=torch.float64, device=self._compute.device)
        with torch.inference_mode():
            for start in range(0, len(self._val), _VALIDATION_BATCH):
                contents = self._to_unit(self._val.batch(slice(start, start + _VALIDATION_BATCH)))
                with self._compute.autocast():
                    pictures = self.network(contents).float()
                losses = self._objective.measure(pictures, contents)
                similarity = ssim(pictures, contents).mean()
                sums += torch.stack([*losses, similarity, torch.ones_like(similarity)]).double() * len(contents)
        *means, count = sum_over_workers(sums.clone(), self._where)
        content, style, variation, similarity = (value / count for value in means)
        losses = StyleLosses(content, style, variation)
        metrics = loss_values(losses, self._objective.total(losses), similarity)
        return Score(-metrics["loss"], metrics["loss"], metrics)

    def _to_unit(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.to(self._compute.device, non_blocking=True).float().mul_(1 / 255)


def _load(
    train: ContentPictures, augment: ContentAugmentation | None, part: tuple[npt.NDArray[np.int64], int]
) -> torch.Tensor:
    rows, seed = part
    pictures = train.batch(rows)
    return pictures if augment is None else augment(pictures, seed)
