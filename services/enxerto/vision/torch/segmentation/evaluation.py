"""How well masks are answered, at the pictures' own size."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.geometry import Placement, place
from enxerto.vision.images import ImageLimits, UInt8Image, load_placed, to_batch
from enxerto.vision.report import Figure, MaskedPicture, Table, confusion_figure, masks_figure
from enxerto.vision.segmentation_metrics import Counts, SegmentationMetrics, count_pixels, segmentation_metrics
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.recipe import Evaluation, MeasuredMetric, Predict
from enxerto.vision.torch.segmentation.masked_pictures import UInt8Mask, decode_mask, mask_to_input, mask_to_picture

_BATCH: Final = 8
_SHOWN: Final = 8


def evaluate_masks(
    predict: Predict,
    samples: Iterator[StoredSample],
    preprocess: PreprocessSpec,
    class_names: tuple[str, ...],
    limits: ImageLimits,
) -> Evaluation:
    """Answer every sample and compare at its picture's size: answers are resized to it by the nearest pixel.

    One picture's mask at a time is in memory, besides a batch of inputs and the worst pictures that are shown.

    Raises:
        InvalidArgumentError: there is no sample, or no labelled pixel.
    """
    classes = len(class_names)
    total: Counts = np.zeros((classes, classes), np.int64)
    worst = _Worst()
    confidence: list[float] = []
    for sample, image, answer, sure in _answers(predict, samples, preprocess, limits):
        truth = decode_mask(sample)
        counts = count_pixels(truth, mask_to_picture(answer, _placed(sample, preprocess)), classes)
        total += counts
        confidence.append(sure)
        if counts.any():
            small = mask_to_input(truth, _placed(sample, preprocess))
            worst.offer(segmentation_metrics(counts).miou, image, small, answer)
    if not total.any():
        raise InvalidArgumentError([Violation("dataset", "the split has no labelled pixel")])
    return _evaluation(total, class_names, worst.pictures(), float(np.mean(confidence)))


def _answers(
    predict: Predict, samples: Iterator[StoredSample], preprocess: PreprocessSpec, limits: ImageLimits
) -> Iterator[tuple[StoredSample, UInt8Image, UInt8Mask, float]]:
    while batch := list(islice(samples, _BATCH)):
        images = [load_placed(sample.data, preprocess, limits)[0] for sample in batch]
        outputs = predict(to_batch(images))
        for sample, image, mask, sure in zip(batch, images, outputs["classes"], outputs["confidence"], strict=True):
            yield sample, image, mask, float(sure)


def _placed(sample: StoredSample, preprocess: PreprocessSpec) -> Placement:
    return place(preprocess, sample.width, sample.height)


class _Worst:
    """The pictures with the lowest mIoU."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, UInt8Image, UInt8Mask, UInt8Mask]] = []
        self._seen = 0

    def offer(self, score: float, image: UInt8Image, truth: UInt8Mask, answer: UInt8Mask) -> None:
        self._seen += 1
        # A heap's first is its smallest, so the best of those kept comes first and is dropped.
        heapq.heappush(self._heap, (-score, -self._seen, image, truth, answer))
        if len(self._heap) > _SHOWN:
            heapq.heappop(self._heap)

    def pictures(self) -> list[MaskedPicture]:
        kept = sorted(self._heap, key=lambda one: one[:2], reverse=True)
        return [MaskedPicture(image, truth, answer, -score) for score, _, image, truth, answer in kept]


def _evaluation(
    counts: Counts, class_names: tuple[str, ...], pictures: list[MaskedPicture], confidence: float
) -> Evaluation:
    metrics = segmentation_metrics(counts)
    named = [
        MeasuredMetric("miou", metrics.miou),
        MeasuredMetric("mean_dice", metrics.mean_dice),
        MeasuredMetric("pixel_accuracy", metrics.pixel_accuracy),
    ]
    for name, one in zip(class_names, metrics.per_class, strict=True):
        if one.occurs:
            named += [MeasuredMetric("iou", one.iou, name), MeasuredMetric("dice", one.dice, name)]
    return Evaluation(
        score=metrics.miou,
        score_name="miou",
        metrics=tuple(named),
        detail={**metrics.to_json(), "confusion": counts.tolist(), "mean_confidence": confidence},
        headline={
            "mIoU": f"{100 * metrics.miou:.1f} %",
            "mean Dice": f"{100 * metrics.mean_dice:.1f} %",
            "pixel accuracy": f"{100 * metrics.pixel_accuracy:.1f} %",
        },
        figures=_figures(counts, class_names, pictures),
        tables=(_by_class(metrics, counts, class_names),),
    )


def _figures(
    counts: npt.NDArray[np.int64], class_names: tuple[str, ...], pictures: list[MaskedPicture]
) -> tuple[Figure, ...]:
    return masks_figure(pictures, class_names), confusion_figure(counts, class_names, unit="pixels")


def _by_class(metrics: SegmentationMetrics, counts: Counts, class_names: tuple[str, ...]) -> Table:
    labelled = max(int(counts.sum()), 1)
    rows = tuple(
        (
            name,
            f"{100 * one.iou:.1f}" if one.occurs else "–",
            f"{100 * one.dice:.1f}" if one.occurs else "–",
            f"{100 * one.pixels / labelled:.2f}",
        )
        for name, one in zip(class_names, metrics.per_class, strict=True)
    )
    return Table("By class", ("class", "IoU %", "Dice %", "pixels %"), rows)
