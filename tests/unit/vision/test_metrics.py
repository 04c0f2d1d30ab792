import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from enxerto.vision.metrics import calibration, classification_metrics, top_k_accuracy


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, 200)
    predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 5, 200))
    ours = classification_metrics(labels, predictions, 6)
    classes = list(range(6))
    per_class = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)
    macro = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    assert ours.accuracy == pytest.approx(accuracy_score(labels, predictions))
    assert [ours.precision, ours.recall, ours.f1] == pytest.approx(list(macro[:3]))
    assert [list(row) for row in ours.confusion] == confusion_matrix(labels, predictions, labels=classes).tolist()
    for index, one in enumerate(ours.per_class):
        expected = [column[index] for column in per_class]
        assert [one.precision, one.recall, one.f1, one.support] == pytest.approx(expected)


def test_classes_that_never_occur_do_not_count() -> None:
    metrics = classification_metrics(np.array([0, 1]), np.array([0, 1]), 5)
    assert (metrics.f1, metrics.per_class[4].support) == (1.0, 0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="some"):
        classification_metrics(np.array([], dtype=int), np.array([], dtype=int), 2)
    with pytest.raises(ValueError, match="must be in"):
        classification_metrics(np.array([2]), np.array([0]), 2)


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    sure = np.array([[0.9, 0.1]] * 10, dtype=np.float32)
    half_right = np.array([0, 1] * 5)
    assert calibration(half_right, sure).error == pytest.approx(0.4, abs=1e-6)
    assert calibration(np.array([0] * 9 + [1]), sure).error == pytest.approx(0.0, abs=1e-6)


def test_log_loss_and_top_k_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(8), 300)
    labels = rng.integers(0, 8, 300)
    assert calibration(labels, probabilities).log_loss == pytest.approx(log_loss(labels, probabilities))
    expected = top_k_accuracy_score(labels, probabilities, k=5)
    assert top_k_accuracy(labels, probabilities, 5) == pytest.approx(expected)
    assert np.isfinite(calibration(np.array([1]), np.array([[1.0, 0.0]])).log_loss)
