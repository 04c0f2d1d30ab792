"""Measure a detector through the outputs that are served."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.contracts import Outputs
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.detection_metrics import DetectionMetrics, Detections, Objects, detection_metrics
from enxerto.vision.geometry import Placement
from enxerto.vision.images import ImageLimits, UInt8Image, load_placed, to_batch
from enxerto.vision.report import BoxedPicture, Figure, PrCurve, Table, boxes_figure, pr_curves_figure
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.boxed_pictures import objects_of
from enxerto.vision.torch.pixel_arrays import decode_in_order
from enxerto.vision.torch.recipe import Evaluation, MeasuredMetric, Predict

_BATCH: Final = 8
_SHOWN: Final = 12
_RECALLS: Final = np.linspace(0, 1, 101)
_AT_THRESHOLD: Final = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture for the report, as the network sees it: its objects and its accepted answers in input pixels."""

    mistakes: int
    picture: BoxedPicture


@dataclass(slots=True)
class _Answers:
    truth: list[Objects] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    accepted: list[Detections] = field(default_factory=list)
    shown: list[_Shown] = field(default_factory=list)


def evaluate_boxes(
    predict: Predict,
    samples: Iterator[StoredSample],
    preprocess: PreprocessSpec,
    class_names: Sequence[str],
    limits: ImageLimits,
    *,
    threads: int | None = None,
) -> Evaluation:
    """COCO's metrics in picture pixels; precision, recall and F1 of what the graph accepts.

    Args:
        predict: (N, 3, H, W) images in [0, 1] to the contract's outputs.
        samples: of a split.
        preprocess: of the model's input.
        class_names: in label order.
        limits: of a picture.
        threads: that decode.
    """
    answers = _answer(predict, samples, preprocess, limits, threads)
    metrics = detection_metrics(answers.truth, answers.found, len(class_names))
    accepted = detection_metrics(answers.truth, answers.accepted, len(class_names))
    operating = [one.at(0.0) for one in accepted.matches]
    overall = _overall(accepted)
    return Evaluation(
        score=metrics.map_50_95,
        score_name="map_50_95",
        metrics=_measured(metrics, overall, operating, class_names),
        detail=_detail(metrics, operating, class_names),
        headline={
            "mAP@[.5:.95]": f"{metrics.map_50_95:.3f}",
            "mAP@.5": f"{metrics.map_50:.3f}",
            "mAP@.75": f"{metrics.map_75:.3f}",
            "precision": f"{overall[0]:.3f}",
            "recall": f"{overall[1]:.3f}",
            "pictures": str(len(answers.truth)),
        },
        figures=_figures(metrics, answers, class_names),
        tables=(_table(metrics, operating, class_names),),
    )


def _answer(
    predict: Predict,
    samples: Iterator[StoredSample],
    preprocess: PreprocessSpec,
    limits: ImageLimits,
    threads: int | None,
) -> _Answers:
    answers = _Answers()

    def decode(sample: StoredSample) -> tuple[UInt8Image, Placement, Objects]:
        return *load_placed(sample.data, preprocess, limits), objects_of(sample)

    waiting: list[tuple[UInt8Image, Placement, Objects]] = []
    for one in decode_in_order(samples, decode, threads):
        waiting.append(one)
        if len(waiting) == _BATCH:
            _add(answers, predict, waiting)
            waiting = []
    if waiting:
        _add(answers, predict, waiting)
    return answers


def _add(answers: _Answers, predict: Predict, batch: Sequence[tuple[UInt8Image, Placement, Objects]]) -> None:
    outputs = predict(to_batch([image for image, _, _ in batch]))
    for row, (image, placed, known) in enumerate(batch):
        real, accepted = outputs["classes"][row] >= 0, outputs["accepted"][row]
        answers.truth.append(known)
        answers.found.append(_detections(outputs, row, real, placed))
        answers.accepted.append(_detections(outputs, row, real & accepted, placed))
        kept = Detections(
            outputs["boxes"][row][accepted], outputs["classes"][row][accepted], outputs["scores"][row][accepted]
        )
        true_boxes = placed.boxes_to_input(known.boxes)
        picture = BoxedPicture(image, true_boxes, known.labels, kept.boxes, kept.labels, kept.scores)
        answers.shown.append(_Shown(_mistakes(known, answers.accepted[-1]), picture))
    # Only the worst may be shown, and only they stay in memory.
    answers.shown.sort(key=lambda one: -one.mistakes)
    del answers.shown[_SHOWN:]


def _detections(outputs: Outputs, row: int, chosen: npt.NDArray[np.bool_], placed: Placement) -> Detections:
    boxes = placed.boxes_to_picture(outputs["boxes"][row][chosen])
    return Detections(boxes, outputs["classes"][row][chosen], outputs["scores"][row][chosen])


def _mistakes(known: Objects, answered: Detections) -> int:
    """Objects that were missed, and answers where there is none."""
    matches = detection_metrics([known], [answered], 1 + int(max([0, *known.labels, *answered.labels]))).matches
    return sum(one.objects + len(one.right) - 2 * int(one.right.sum()) for one in matches)


def _overall(accepted: DetectionMetrics) -> tuple[float, float, float]:
    """Precision, recall and F1 over all classes together."""
    hits = sum(int(one.right.sum()) for one in accepted.matches)
    answered = sum(len(one.right) for one in accepted.matches)
    objects = sum(one.objects for one in accepted.matches)
    return (
        hits / answered if answered else 0.0,
        hits / objects if objects else 0.0,
        2 * hits / (answered + objects) if answered + objects else 0.0,
    )


def _measured(
    metrics: DetectionMetrics,
    overall: tuple[float, float, float],
    operating: Sequence[tuple[float, float, float]],
    class_names: Sequence[str],
) -> tuple[MeasuredMetric, ...]:
    """The own metric first; classes without objects in the split have none."""
    named = [
        MeasuredMetric("map_50_95", metrics.map_50_95),
        MeasuredMetric("map_50", metrics.map_50),
        MeasuredMetric("map_75", metrics.map_75),
        *(MeasuredMetric(name, value) for name, value in zip(_AT_THRESHOLD, overall, strict=True)),
    ]
    for label, class_name in enumerate(class_names):
        if not metrics.matches[label].objects:
            continue
        named.append(MeasuredMetric("average_precision", float(metrics.average_precision[label]), class_name))
        named.append(MeasuredMetric("average_precision_50", float(metrics.average_precision_50[label]), class_name))
        values = zip(_AT_THRESHOLD, operating[label], strict=True)
        named.extend(MeasuredMetric(name, value, class_name) for name, value in values)
    return tuple(named)


def _detail(
    metrics: DetectionMetrics, operating: Sequence[tuple[float, float, float]], class_names: Sequence[str]
) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(float(value), 6)

    return {
        "recall": [round(float(value), 2) for value in _RECALLS],
        "classes": [
            {
                "name": name,
                "objects": metrics.matches[label].objects,
                "average_precision": number(metrics.average_precision[label]),
                "average_precision_50": number(metrics.average_precision_50[label]),
                "precision_at_recall": [number(value) for value in metrics.precision_at_recall[label]],
                **dict(zip(_AT_THRESHOLD, operating[label], strict=True)),
            }
            for label, name in enumerate(class_names)
        ],
    }


def _table(
    metrics: DetectionMetrics, operating: Sequence[tuple[float, float, float]], class_names: Sequence[str]
) -> Table:
    def text(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.3f}"

    rows = tuple(
        (
            name,
            text(metrics.average_precision[label]),
            text(metrics.average_precision_50[label]),
            *(text(value) for value in operating[label]),
            str(metrics.matches[label].objects),
        )
        for label, name in enumerate(class_names)
    )
    header = ("class", "AP@[.5:.95]", "AP@.5", "precision", "recall", "F1", "objects")
    return Table("By class; precision, recall and F1 of what is accepted", header, rows)


def _figures(metrics: DetectionMetrics, answers: _Answers, class_names: Sequence[str]) -> tuple[Figure, ...]:
    known = [label for label, one in enumerate(metrics.matches) if one.objects]
    figures = [boxes_figure([one.picture for one in answers.shown], class_names)] if answers.shown else []
    if not known:
        return tuple(figures)
    curves = [
        PrCurve(class_names[label], _RECALLS, metrics.precision_at_recall[label], metrics.average_precision_50[label])
        for label in known
    ]
    mean = PrCurve("all classes", _RECALLS, metrics.precision_at_recall[known].mean(axis=0), metrics.map_50)
    return pr_curves_figure([mean, *curves]), *figures
