"""Detection as the engine trains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.detection_metrics import DetectionMetrics, Detections, detection_metrics
from enxerto.vision.finetuning import AugmentPolicy, FinetuneSpec
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.collectives import Distribution, gather_rows, sum_over_workers
from enxerto.vision.torch.detection.augmentation import BoxedAugmentation
from enxerto.vision.torch.detection.boxed_pictures import BoxedPictures
from enxerto.vision.torch.detection.detector import Detector, Target
from enxerto.vision.torch.detection.suppression import select
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.epochs import batch_count, full_batches
from enxerto.vision.torch.feeding import Feed
from enxerto.vision.torch.learner import Batch, Score, Stages

_VALIDATION_BATCH: Final = 8
_BOX, _SCORE, _LABEL = slice(0, 4), 4, 5


@dataclass(frozen=True, slots=True)
class DetectionData:
    """What a run trains on and selects by.

    Attributes:
        class_names: in label order.
        preprocess: that made the pictures.
        train: this worker's part.
        val: likewise.
    """

    class_names: tuple[str, ...]
    preprocess: PreprocessSpec
    train: BoxedPictures
    val: BoxedPictures


class DetectionLearner:
    """A detector, pictures with boxes, and the family's own loss."""

    network: nn.Module

    def __init__(
        self,
        detector: Detector,
        data: DetectionData,
        spec: FinetuneSpec,
        *,
        where: Distribution,
        compute: Compute,
    ) -> None:
        # Depthwise convolutions on a CPU were 2 to 2.5 times faster with channels last.
        self.network = self._detector = detector.to(compute.device).to(memory_format=torch.channels_last)
        self._data, self._spec, self._where, self._compute = data, spec, where, compute
        augments = spec.augmentation.policy is not AugmentPolicy.NONE
        augment = BoxedAugmentation(data.preprocess) if augments else None
        self._feed = Feed(partial(_load, data.train, augment), compute)
        self._largest = float(max(data.preprocess.height, data.preprocess.width))

    @property
    def stages(self) -> Stages:
        """The backbone's, from input to output."""
        return self._detector.stages

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Feature pyramid and predictors."""
        return self._detector.heads

    @property
    def train_count(self) -> int:
        """Training pictures over all workers."""
        return self._data.train.total

    def batch_count(self, size: int) -> int:
        """Batches of an epoch; by the longest part, so that no worker waits for another."""
        return batch_count(self.train_count, size, self._where)

    def batches(self, epoch: int, size: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
        """(uint8 images, targets), all of one size: the last batch is filled up from the epoch's first pictures.

        A batch of one picture with small maps would leave new layers' batch norm without a variance.
        """
        key = self._spec.seed, epoch, self._where.rank
        plan = full_batches(len(self._data.train), self.batch_count(size), size, key)
        for batch in self._feed.follow(islice(plan, start, None)):
            yield batch, size

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch."""
        loss: torch.Tensor = model(*self._to_device(*batch))
        return loss

    def validate(self) -> Score:
        """mAP@[.5:.95] over the validation split, in picture pixels."""
        loss, metrics = self._measure()
        named = {"map_50_95": metrics.map_50_95, "map_50": metrics.map_50, "map_75": metrics.map_75}
        return Score(metrics.map_50_95, loss, named)

    def thresholds(self) -> torch.Tensor:
        """(classes,) scores with the best F1 on the validation split; collective, the same on every worker."""
        return torch.from_numpy(self._measure()[1].thresholds)

    def _measure(self) -> tuple[float, DetectionMetrics]:
        val = self._data.val
        sums = torch.zeros(2, dtype=torch.float64, device=self._compute.device)
        parts = [torch.empty(0, MAX_DETECTIONS, 6)]
        # Faster R-CNN draws the proposals of its loss: the same ones each time.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._spec.seed)
            for start in range(0, len(val), _VALIDATION_BATCH):
                rows = np.arange(start, min(start + _VALIDATION_BATCH, len(val)))
                images, targets = self._to_device(*val.batch(rows))
                with self._compute.autocast():
                    raw = self._detector.raw(images)
                    loss = self._detector.loss_of(raw, targets)
                    candidates = self._detector.candidates_of(raw)
                boxes, scores, labels = select(candidates, self._detector.iou_threshold, self._largest)
                sums += torch.stack((loss.double() * len(rows), loss.new_tensor(len(rows), dtype=torch.float64)))
                answers = torch.cat((boxes, scores.unsqueeze(2), labels.unsqueeze(2).to(boxes.dtype)), dim=2)
                parts.append(self._to_picture(answers.cpu(), rows))
        sums = sum_over_workers(sums, self._where)
        device = self._compute.device
        indices = torch.from_numpy(val.indices).to(device)
        rows_of_all = gather_rows(torch.cat(parts).to(device), indices, val.total, self._where).cpu().numpy()
        found = [_detections(one) for one in rows_of_all]
        metrics = detection_metrics(val.truth, found, len(self._data.class_names))
        return float(sums[0] / sums[1].clamp(min=1)), metrics

    def _to_picture(self, answers: torch.Tensor, rows: npt.NDArray[Any]) -> torch.Tensor:
        for answer, row in zip(answers, rows, strict=True):
            moved = self._data.val.placements[row].boxes_to_picture(answer[:, _BOX].numpy())
            answer[:, _BOX] = torch.from_numpy(moved)
        return answers

    def _to_device(self, images: torch.Tensor, targets: Sequence[Target]) -> tuple[torch.Tensor, list[Target]]:
        device = self._compute.device
        moved = images.to(device, non_blocking=True)
        unit = moved.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
        return unit, [{"boxes": one["boxes"].to(device), "labels": one["labels"].to(device)} for one in targets]


def _detections(rows: npt.NDArray[Any]) -> Detections:
    real = rows[rows[:, _SCORE] > 0]
    return Detections(real[:, _BOX], real[:, _LABEL].astype(np.int64), real[:, _SCORE])


def _load(
    train: BoxedPictures, augment: BoxedAugmentation | None, part: tuple[npt.NDArray[np.int64], int]
) -> tuple[torch.Tensor, list[Target]]:
    rows, seed = part
    images, targets = train.batch(rows)
    return (images, targets) if augment is None else augment(images, targets, seed)
