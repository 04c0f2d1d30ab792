"""Segmentation as the engine trains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from enxerto.vision.contracts import IGNORED
from enxerto.vision.finetuning import AugmentPolicy, ClassWeights, FinetuneSpec
from enxerto.vision.segmentation_metrics import segmentation_metrics
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.collectives import Distribution, sum_over_workers
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.epochs import batch_count, full_batches
from enxerto.vision.torch.feeding import Feed
from enxerto.vision.torch.learner import Batch, Score, Stages
from enxerto.vision.torch.segmentation.augmentation import MaskedAugmentation
from enxerto.vision.torch.segmentation.losses import MaskLoss, balanced_weights, count_classes
from enxerto.vision.torch.segmentation.masked_pictures import MaskedPictures
from enxerto.vision.torch.segmentation.network import SegmentationNetwork

_AUXILIARY_WEIGHT: Final = 0.5
"""torchvision's, in its reference training of these networks."""

_VALIDATION_BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class SegmentationData:
    """What a run trains on and selects by.

    Attributes:
        class_names: in label order.
        preprocess: that made the pictures.
        train: this worker's part.
        val: likewise.
    """

    class_names: tuple[str, ...]
    preprocess: PreprocessSpec
    train: MaskedPictures
    val: MaskedPictures


class SegmentationLearner:
    """A network, masked pictures and their loss."""

    network: nn.Module

    def __init__(
        self,
        network: SegmentationNetwork,
        data: SegmentationData,
        spec: FinetuneSpec,
        *,
        where: Distribution,
        compute: Compute,
    ) -> None:
        self.network = self._segmenter = network.to(compute.device)
        # Depthwise convolutions on a CPU were 2 to 2.5 times faster with channels last.
        network.to(memory_format=torch.channels_last)
        self._data, self._spec, self._where, self._compute = data, spec, where, compute
        weight = None
        if spec.loss.class_weights is ClassWeights.BALANCED:
            counts = count_classes(data.train, len(data.class_names)).to(compute.device)
            weight = balanced_weights(sum_over_workers(counts, where))
        self._loss = MaskLoss(spec.loss, weight).to(compute.device)
        augments = spec.augmentation.policy is not AugmentPolicy.NONE
        augment = MaskedAugmentation(data.preprocess) if augments else None
        self._feed = Feed(partial(_load, data.train, augment), compute)

    @property
    def stages(self) -> Stages:
        """The backbone's, from input to output."""
        return self._segmenter.stages

    @property
    def heads(self) -> Sequence[nn.Module]:
        """What is new: the decoder, or the last layers."""
        return self._segmenter.heads

    @property
    def train_count(self) -> int:
        """Training pictures over all workers."""
        return self._data.train.total

    def batch_count(self, size: int) -> int:
        """Batches of an epoch; by the longest part, so that no worker waits for another."""
        return batch_count(self.train_count, size, self._where)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """(images, masks) of uint8, all of one size: the last batch is filled up from the epoch's first pictures.

        A batch of one would leave the pooled branch of DeepLab without a variance.
        """
        key = self._spec.seed, epoch, self._where.rank
        plan = full_batches(len(self._data.train), self.batch_count(size), size, key)
        for batch in self._feed.follow(islice(plan, start, None)):
            yield batch, size

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch, with the auxiliary head's where there is one."""
        images, masks = self._to_device(*batch)
        logits = model(images)
        loss: torch.Tensor = self._loss(logits.main.float(), masks)
        if logits.auxiliary is not None:
            loss = loss + _AUXILIARY_WEIGHT * self._loss(logits.auxiliary.float(), masks)
        return loss

    def validate(self) -> Score:
        """mIoU over the validation split, at the input's size."""
        val, classes = self._data.val, len(self._data.class_names)
        sums = torch.zeros(classes * classes + 2, dtype=torch.float64, device=self._compute.device)
        with torch.inference_mode():
            for start in range(0, len(val), _VALIDATION_BATCH):
                images, masks = self._to_device(*val.batch(slice(start, start + _VALIDATION_BATCH)))
                with self._compute.autocast():
                    logits = self._segmenter(images).main.float()
                kept = masks != IGNORED
                flat = masks[kept] * classes + logits.argmax(dim=1)[kept]
                sums[:-2] += torch.bincount(flat, minlength=classes * classes)
                sums[-2] += self._loss(logits, masks).double() * len(images)
                sums[-1] += len(images)
        *counts, loss, count = sum_over_workers(sums.clone(), self._where).tolist()
        metrics = segmentation_metrics(np.array(counts, np.int64).reshape(classes, classes))
        named = {"miou": metrics.miou, "mean_dice": metrics.mean_dice, "pixel_accuracy": metrics.pixel_accuracy}
        return Score(metrics.miou, loss / count, named)

    def _to_device(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved = images.to(self._compute.device, non_blocking=True)
        unit = moved.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
        return unit, masks.to(self._compute.device, non_blocking=True).long()


def _load(
    train: MaskedPictures, augment: MaskedAugmentation | None, part: tuple[npt.NDArray[np.int64], int]
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, seed = part
    images, masks = train.batch(rows)
    return (images, masks) if augment is None else augment(images, masks, seed)
