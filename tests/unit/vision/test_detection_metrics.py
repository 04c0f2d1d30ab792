"""What COCO's evaluator and the operating thresholds say about answers worked out by hand."""

import numpy as np
import pytest

from enxerto.vision.detection_metrics import DEFAULT_THRESHOLD, Detections, Objects, detection_metrics

SQUARE = (10.0, 10.0, 30.0, 30.0)
ELSEWHERE = (60.0, 60.0, 90.0, 90.0)


def objects(*known: tuple[tuple[float, ...], int], crowd: bool = False) -> Objects:
    boxes = np.array([box for box, _ in known], np.float64).reshape(-1, 4)
    return Objects(boxes, np.array([label for _, label in known], np.int64), np.full(len(known), crowd))


def answers(*found: tuple[tuple[float, ...], int, float]) -> Detections:
    boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
    labels, scores = [one[1] for one in found], [one[2] for one in found]
    return Detections(boxes, np.array(labels, np.int64), np.array(scores, np.float32))


def test_a_right_answer_for_every_object_scores_one() -> None:
    metrics = detection_metrics(
        [objects((SQUARE, 0), (ELSEWHERE, 1)), objects()],
        [answers((SQUARE, 0, 0.9), (ELSEWHERE, 1, 0.8)), answers()],
        2,
    )
    assert (metrics.map_50_95, metrics.map_50, metrics.map_75) == pytest.approx((1, 1, 1))
    assert metrics.average_precision.tolist() == pytest.approx([1, 1])


def test_the_first_object_counts_as_any_other() -> None:
    # An evaluator that numbers objects from 0 takes the first for "matched with nothing".
    metrics = detection_metrics([objects((SQUARE, 0))], [answers((SQUARE, 0, 0.9))], 1)
    assert metrics.matches[0].right.tolist() == [True]


def test_a_class_without_objects_is_left_out_of_the_mean() -> None:
    metrics = detection_metrics([objects((SQUARE, 0))], [answers((SQUARE, 0, 0.9), (ELSEWHERE, 1, 0.9))], 2)
    assert metrics.map_50_95 == pytest.approx(1)
    assert np.isnan(metrics.average_precision[1])
    assert metrics.thresholds[1] == DEFAULT_THRESHOLD


def test_no_answers_and_no_objects_are_numbers_too() -> None:
    assert detection_metrics([objects((SQUARE, 0))], [answers()], 1).map_50_95 == 0
    assert detection_metrics([objects()], [answers((SQUARE, 0, 0.9))], 1).map_50_95 == 0


def test_a_box_of_half_the_overlap_counts_at_low_iou_only() -> None:
    wide = (10.0, 10.0, 30.0, 42.0)
    metrics = detection_metrics([objects((SQUARE, 0))], [answers((wide, 0, 0.9))], 1)
    assert metrics.map_50 == pytest.approx(1)
    assert metrics.map_75 == 0
    assert metrics.map_50_95 == pytest.approx(0.3)


def test_answers_on_a_crowd_are_neither_right_nor_wrong() -> None:
    truth = Objects(np.array([SQUARE, ELSEWHERE]), np.array([0, 0]), np.array([False, True]))
    within = (62.0, 62.0, 75.0, 75.0)
    metrics = detection_metrics([truth], [answers((SQUARE, 0, 0.5), (within, 0, 0.9))], 1)
    assert metrics.map_50_95 == pytest.approx(1)
    assert (metrics.matches[0].objects, metrics.matches[0].scores.tolist()) == (1, [0.5])


def test_the_threshold_is_where_f1_is_best() -> None:
    truth = [objects((SQUARE, 0)) for _ in range(3)]
    found = [answers((SQUARE, 0, 0.9)), answers((SQUARE, 0, 0.7)), answers((ELSEWHERE, 0, 0.3))]
    metrics = detection_metrics(truth, found, 1)
    # 0.7 is the last that is right; the threshold lies halfway to 0.3.
    assert metrics.thresholds.tolist() == pytest.approx([0.5])
    precision, recall, f1 = metrics.matches[0].at(0.5)
    assert (precision, recall, f1) == pytest.approx((1, 2 / 3, 0.8))


def test_answers_of_one_score_are_in_or_out_together() -> None:
    truth = [objects((SQUARE, 0)), objects()]
    found = [answers((SQUARE, 0, 0.6)), answers((SQUARE, 0, 0.6), (ELSEWHERE, 0, 0.2))]
    matches = detection_metrics(truth, found, 1).matches[0]
    assert matches.best_threshold() == pytest.approx(0.4)
    assert matches.at(matches.best_threshold()) == pytest.approx((0.5, 1, 2 / 3))
