import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from enxerto.vision.segmentation_metrics import count_pixels, segmentation_metrics


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth, answer = rng.integers(0, 4, (3, 20, 30)), rng.integers(0, 4, (3, 20, 30))
    truth[:, :5] = 255
    kept = truth != 255
    metrics = segmentation_metrics(count_pixels(truth, answer, 4))
    assert metrics.miou == pytest.approx(jaccard_score(truth[kept], answer[kept], average="macro"))
    assert metrics.mean_dice == pytest.approx(f1_score(truth[kept], answer[kept], average="macro"))
    assert metrics.pixel_accuracy == pytest.approx((truth[kept] == answer[kept]).mean())
    per_class = jaccard_score(truth[kept], answer[kept], average=None)
    assert [one.iou for one in metrics.per_class] == pytest.approx(list(per_class))


def test_pictures_add_up() -> None:
    rng = np.random.default_rng(2)
    truth, answer = rng.integers(0, 3, (5, 8, 8)), rng.integers(0, 3, (5, 8, 8))
    one_by_one = sum(count_pixels(a, b, 3) for a, b in zip(truth, answer, strict=True))
    assert (one_by_one == count_pixels(truth, answer, 3)).all()


def test_a_class_that_is_nowhere_does_not_count() -> None:
    truth = np.array([[0, 0, 1, 1]])
    metrics = segmentation_metrics(count_pixels(truth, truth, 3))
    assert metrics.miou == 1
    assert not metrics.per_class[2].occurs
    wrong = segmentation_metrics(count_pixels(truth, np.array([[0, 0, 1, 2]]), 3))
    assert wrong.miou == pytest.approx((1 + 0.5 + 0) / 3)


def test_what_makes_no_sense_is_refused() -> None:
    mask = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        count_pixels(mask, mask[:1], 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        count_pixels(mask, mask + 2, 2)
    with pytest.raises(ValueError, match="no labelled pixel"):
        segmentation_metrics(count_pixels(np.full((2, 2), 255), mask, 2))
