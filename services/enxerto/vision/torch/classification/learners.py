"""What the engine trains: a head on cached features, or the network on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from enxerto.vision.finetuning import AugmentationSpec, Sampling
from enxerto.vision.torch.classification.augment import Augmentation, Mixing
from enxerto.vision.torch.classification.features import FEATURE_BATCH, Labelled, to_unit
from enxerto.vision.torch.classification.images import Images
from enxerto.vision.torch.classification.losses import Loss
from enxerto.vision.torch.classification.network import GraftedNetwork
from enxerto.vision.torch.collectives import Distribution, gather_rows, sum_over_workers
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.feeding import Feed
from enxerto.vision.torch.learner import Score, Stages
from enxerto.vision.torch.pixel_arrays import Indices

Batch = tuple[torch.Tensor, torch.Tensor]
_ORDER: Final = 1
_AUGMENT: Final = 2
_MIX: Final = 3


@dataclass(frozen=True, slots=True)
class Sampler:
    """The order of an epoch.

    Attributes:
        labels: of the images to draw from.
        sampling: SHUFFLED takes each once; BALANCED draws every class as often, with replacement.
        seed: decides the draws, together with the epoch and the rank.
        rank: of the worker whose images they are.
    """

    labels: Indices
    sampling: Sampling
    seed: int
    rank: int = 0

    def order(self, epoch: int) -> Indices:
        """As many rows as there are labels."""
        generator = np.random.default_rng((self.seed, epoch, self.rank, _ORDER))
        if self.sampling is Sampling.SHUFFLED:
            return generator.permutation(len(self.labels))
        _, inverse, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        shares = 1 / (counts[inverse] * len(counts))
        return generator.choice(len(self.labels), len(self.labels), p=shares / shares.sum())


class FeatureLearner:
    """Trains the head alone, on every worker the same: `features` gives those of an epoch, `fit(replicated=True)`."""

    def __init__(
        self,
        head: nn.Module,
        features: Callable[[int], Labelled],
        val: Labelled,
        sampler: Sampler,
        loss: Loss,
    ) -> None:
        self.network = head
        self._features = features
        self._val = val
        self._sampler = sampler
        self._loss = loss

    @property
    def stages(self) -> Stages:
        """None: the backbone is not here."""
        return ()

    @property
    def heads(self) -> Sequence[nn.Module]:
        """All there is."""
        return (self.network,)

    @property
    def train_count(self) -> int:
        """Training images over all workers."""
        return len(self._sampler.labels)

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        return math.ceil(self.train_count / size)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """Features and labels."""
        features, labels = self._features(epoch)
        order = torch.from_numpy(self._sampler.order(epoch)).to(features.device)
        for rows in torch.split(order[start * size :], size):
            yield (features[rows], labels[rows]), len(rows)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Of the head, in float32: it costs nothing."""
        with torch.autocast(batch[0].device.type, enabled=False):
            return self._loss(model(batch[0]), batch[1])

    def validate(self) -> Score:
        """Accuracy, and cross entropy in nats."""
        with torch.no_grad():
            logits = self.network(self._val[0])
        return score_of(*sums_of(logits, self._val[1]).tolist())


class ImageLearner:
    """Trains stages of the backbone and the head."""

    def __init__(
        self,
        network: GraftedNetwork,
        train: Images,
        val: Images,
        *,
        sampler: Sampler,
        loss: Loss,
        augment: Augmentation | None,
        mixing: AugmentationSpec,
        classes: int,
        where: Distribution,
        compute: Compute,
    ) -> None:
        self.network = network
        self._train, self._val = train, val
        self._sampler = sampler
        self._loss = loss
        self._feed = Feed(partial(_load, train, augment), compute)
        self._classes = classes
        self._mixing = Mixing(mixing, classes)
        self._where = where
        self._compute = compute

    @property
    def stages(self) -> Stages:
        """The backbone's."""
        return self.network.backbone.stages

    @property
    def heads(self) -> Sequence[nn.Module]:
        """The classifier."""
        return (self.network.head,)

    @property
    def train_count(self) -> int:
        """Training images over all workers."""
        return self._train.total

    def batch_count(self, size: int) -> int:
        """By the longest part, so that no worker waits for a gradient that another will not send."""
        return math.ceil(math.ceil(self.train_count / self._where.world_size) / size)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """Images in [0, 1] and labels, on the device; from the start again where they run out."""
        order = self._sampler.order(epoch)
        keys = [(self._sampler.seed, epoch, self._where.rank, index) for index in range(self.batch_count(size))]
        parts = [order[index * size : (index + 1) * size] for index in range(len(keys))]
        plan = [(rows if len(rows) else order[:size], key) for rows, key in zip(parts, keys, strict=True)][start:]
        device = self._compute.device
        for (pixels, labels), (rows, key) in zip(self._feed.follow(plan), plan, strict=True):
            batch = to_unit(pixels, self._compute), labels.to(device, non_blocking=True)
            yield self._mixing(*batch, *key, _MIX) if self._mixing else batch, len(rows)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Of the logits in float32."""
        return self._loss(model(batch[0]).float(), batch[1])

    def validate(self) -> Score:
        """Accuracy, and cross entropy in nats."""
        network = self.network.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self._compute.device)
        with torch.inference_mode(), self._compute.autocast():
            for logits, labels in self._answers(network):
                sums += sums_of(logits, labels)
        return score_of(*sum_over_workers(sums.clone(), self._where).tolist())

    def val_answers(self) -> Labelled:
        """(N, classes) logits and (N,) labels of the validation split, the same on every worker."""
        network = self.network.eval()
        with torch.inference_mode(), self._compute.autocast():
            answers = list(self._answers(network))
        # A worker without images still takes part, and knows how wide its rows would be.
        logits = torch.cat([torch.empty(0, self._classes, device=self._compute.device), *(one for one, _ in answers)])
        labels = torch.from_numpy(self._val.labels).to(self._compute.device)
        places = torch.arange(self._where.rank, self._val.total, self._where.world_size, device=labels.device)
        return (
            gather_rows(logits.clone(), places, self._val.total, self._where),
            gather_rows(labels, places, self._val.total, self._where),
        )

    def _answers(self, network: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self._val), FEATURE_BATCH):
            rows = np.arange(start, min(start + FEATURE_BATCH, len(self._val)))
            labels = torch.from_numpy(self._val.labels[rows]).to(self._compute.device)
            yield network(to_unit(self._val.batch(rows), self._compute)).float(), labels


def sums_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(3,), float64: cross entropy in nats, right answers, images."""
    loss = functional.cross_entropy(logits, labels, reduction="sum").double()
    right = (logits.argmax(1) == labels).sum().double()
    return torch.stack((loss, right, loss.new_tensor(float(len(labels)))))


def score_of(loss: float, right: float, count: float) -> Score:
    """The score that sums mean."""
    return Score(right / count, loss / count, {"accuracy": right / count})


def _load(
    train: Images, augment: Augmentation | None, part: tuple[Indices, tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Varied uint8 images and labels of some rows; the key decides the draws."""
    rows, key = part
    pixels = train.batch(rows)
    if augment is not None:
        pixels = augment(pixels, *key, _AUGMENT)
    return pixels, torch.from_numpy(train.labels[rows])
