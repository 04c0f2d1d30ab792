"""Metrics of detectors, by COCO's own evaluator (Lin et al. 2014, arXiv:1405.0312). No torch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from enxerto.vision.contracts import MAX_DETECTIONS

DEFAULT_THRESHOLD: Final = 0.5
"""Operating threshold of a class that the split has no objects of."""

_IOU_50: Final = 0
_IOU_75: Final = 5
_ALL_AREAS: Final = 0
_MOST_DETECTIONS: Final = -1


@dataclass(frozen=True, slots=True)
class Objects:
    """What a picture shows.

    Attributes:
        boxes: (n, 4), x_min, y_min, x_max, y_max.
        labels: (n,), int64.
        crowd: (n,), bool: an answer there is neither right nor wrong.
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Detections:
    """What was answered for a picture, in the same pixels.

    Attributes:
        boxes: (m, 4).
        labels: (m,), int64.
        scores: (m,), in [0, 1].
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Matches:
    """Of a class at IoU 0.5: its detections over all pictures, those on crowds left out.

    Attributes:
        scores: (d,), falling.
        right: (d,), bool: whether each found an object that none before it had.
        objects: in the pictures.
    """

    scores: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    objects: int

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and F1 of the detections whose score reaches the threshold; 0 where undefined."""
        chosen = self.right[self.scores >= threshold]
        hits = int(chosen.sum())
        precision = hits / len(chosen) if len(chosen) else 0.0
        recall = hits / self.objects if self.objects else 0.0
        return precision, recall, _f1(hits, len(chosen), self.objects)

    def best_threshold(self) -> float:
        """The score with the best F1; halfway to the next one, so that no rounding of a runtime crosses it."""
        if not self.objects or not self.right.any():
            return DEFAULT_THRESHOLD
        hits = np.cumsum(self.right)
        scores = 2 * hits / (np.arange(1, len(hits) + 1) + self.objects)
        # Detections of one score are in or out together.
        last_of_score = np.append(self.scores[1:] < self.scores[:-1], True)
        best = int(np.argmax(np.where(last_of_score, scores, -1.0)))
        following = self.scores[best + 1] if best + 1 < len(hits) else 0.0
        return float((self.scores[best] + following) / 2)


@dataclass(frozen=True, slots=True)
class DetectionMetrics:
    """Of a split. NaN stands for a class that it has no objects of.

    Attributes:
        map_50_95: mean over classes and IoU 0.5, 0.55 ... 0.95; 0 without any object.
        map_50: at IoU 0.5.
        map_75: at IoU 0.75.
        average_precision: (classes,), over IoU 0.5 ... 0.95.
        average_precision_50: (classes,), at IoU 0.5.
        precision_at_recall: (classes, 101), at IoU 0.5 and recall 0, 0.01 ... 1.
        matches: of each class.
    """

    map_50_95: float
    map_50: float
    map_75: float
    average_precision: npt.NDArray[np.float64]
    average_precision_50: npt.NDArray[np.float64]
    precision_at_recall: npt.NDArray[np.float64]
    matches: tuple[Matches, ...]

    @property
    def thresholds(self) -> npt.NDArray[np.float32]:
        """(classes,), the operating thresholds with the best F1 at IoU 0.5."""
        return np.array([one.best_threshold() for one in self.matches], np.float32)


def detection_metrics(
    truth: Sequence[Objects], answers: Sequence[Detections], classes: int, *, limit: int = MAX_DETECTIONS
) -> DetectionMetrics:
    """Compare answers with the truth, picture by picture.

    Args:
        truth: of every picture.
        answers: of the same pictures.
        classes: how many there are.
        limit: of the answers of a picture that count, the most certain ones.
    """
    evaluator = _evaluator(truth, answers, classes, limit)
    # (IoU, recall, class, area, limit); -1 where there is no object.
    precision = evaluator.eval["precision"][:, :, :, _ALL_AREAS, _MOST_DETECTIONS].astype(np.float64)
    precision[precision < 0] = np.nan
    known = ~np.isnan(precision[_IOU_50, 0])
    by_class = precision.mean(axis=(0, 1))

    def mean(values: npt.NDArray[np.float64]) -> float:
        return float(values[known].mean()) if known.any() else 0.0

    return DetectionMetrics(
        map_50_95=mean(by_class),
        map_50=mean(precision[_IOU_50].mean(axis=0)),
        map_75=mean(precision[_IOU_75].mean(axis=0)),
        average_precision=by_class,
        average_precision_50=precision[_IOU_50].mean(axis=0),
        precision_at_recall=precision[_IOU_50].T,
        matches=tuple(_matches(evaluator, label, len(truth)) for label in range(classes)),
    )


def _evaluator(truth: Sequence[Objects], answers: Sequence[Detections], classes: int, limit: int) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        known, found = COCO(), COCO()
        categories = [{"id": label, "name": str(label)} for label in range(classes)]
        images = [{"id": number} for number in range(len(truth))]
        known.dataset = {"images": images, "categories": categories, "annotations": _annotations(truth)}
        found.dataset = {"images": images, "categories": categories, "annotations": _results(answers)}
        known.createIndex()
        found.createIndex()
        evaluator = COCOeval(known, found, "bbox")
        evaluator.params.maxDets = [limit]
        evaluator.params.areaRng = evaluator.params.areaRng[:1]
        evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _annotations(truth: Sequence[Objects]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(truth):
        for box, label, crowd in zip(one.boxes, one.labels, one.crowd, strict=True):
            # Numbers begin at 1: the evaluator takes 0 for "matched with nothing".
            rows.append({**_row(len(rows) + 1, number, box, int(label)), "iscrowd": int(crowd)})
    return rows


def _results(answers: Sequence[Detections]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(answers):
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True):
            rows.append({**_row(len(rows) + 1, number, box, int(label)), "score": float(score), "iscrowd": 0})
    return rows


def _row(identity: int, image: int, box: npt.NDArray[Any], label: int) -> dict[str, Any]:
    left, top, right, bottom = (float(value) for value in box)
    width, height = right - left, bottom - top
    return {
        "id": identity,
        "image_id": image,
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": width * height,
    }


def _matches(evaluator: Any, label: int, pictures: int) -> Matches:
    # One area, so that the results lie by class and then by picture.
    results = [one for one in evaluator.evalImgs[label * pictures : (label + 1) * pictures] if one is not None]
    scores = np.array([score for one in results for score in one["dtScores"]], np.float64)
    right = np.concatenate([one["dtMatches"][_IOU_50] > 0 for one in results] or [np.empty(0, bool)])
    counts = np.concatenate([one["dtIgnore"][_IOU_50] == 0 for one in results] or [np.empty(0, bool)])
    objects = sum(int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in results)
    scores, right = scores[counts.astype(bool)], right[counts.astype(bool)]
    order = np.argsort(-scores, kind="stable")
    return Matches(scores[order], right[order].astype(np.bool_), objects)


def _f1(hits: int, answered: int, objects: int) -> float:
    return 2 * hits / (answered + objects) if answered + objects else 0.0
