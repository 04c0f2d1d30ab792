"""Moments of embeddings, and how far others lie from them."""

import numpy as np
import pytest

from enxerto.vision.embeddings import EmbeddingReference, RunningMoments

GENERATOR = np.random.default_rng(0)
TRAINED = GENERATOR.normal([0, 5, -2, 100], [1, 0.5, 3, 20], (4000, 4)).astype(np.float32)


def moments(rows: np.ndarray, window: int = 0, batch: int = 7) -> RunningMoments:
    running = RunningMoments(rows.shape[1], window)
    for start in range(0, len(rows), batch):
        running.add(rows[start : start + batch])
    return running


@pytest.fixture(scope="module")
def reference() -> EmbeddingReference:
    running = moments(TRAINED)
    return EmbeddingReference(running.count, running.mean, running.variance, 0.01)


def drift(reference: EmbeddingReference, rows: np.ndarray) -> float:
    return reference.drift(rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64))


def test_batches_give_the_moments_of_all_rows() -> None:
    running = moments(TRAINED)
    assert running.count == 4000
    np.testing.assert_allclose(running.mean, TRAINED.mean(axis=0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(running.variance, TRAINED.var(axis=0, dtype=np.float64), rtol=1e-9)
    running.add(TRAINED[:0])
    assert running.count == 4000


def test_a_window_forgets_what_is_long_ago() -> None:
    rows = np.concatenate([TRAINED, TRAINED[:1000] + 50])
    running = moments(rows, window=100)
    np.testing.assert_allclose(running.mean - 50, TRAINED.mean(axis=0), atol=6)
    assert np.abs(moments(rows).mean - running.mean).max() > 30


def test_the_distance_is_of_one_scale_for_every_feature(reference: EmbeddingReference) -> None:
    scale = TRAINED.std(axis=0)
    same = GENERATOR.normal([0, 5, -2, 100], [1, 0.5, 3, 20], (4000, 4)).astype(np.float32)
    assert drift(reference, same) < 0.005
    assert drift(reference, TRAINED + scale) == pytest.approx(1, rel=0.01)
    # One feature of four moves by two deviations: (2 ** 2) / 4.
    assert drift(reference, TRAINED + scale * np.array([0, 2, 0, 0])) == pytest.approx(1, rel=0.01)
    # Twice as wide: (2 - 1) ** 2.
    assert drift(reference, TRAINED.mean(axis=0) + 2 * (TRAINED - TRAINED.mean(axis=0))) == pytest.approx(1, rel=0.01)


def test_an_image_lies_as_far_as_the_training_images_or_farther(reference: EmbeddingReference) -> None:
    assert np.sqrt((reference.distances(TRAINED) ** 2).mean()) == pytest.approx(1, rel=0.01)
    far = TRAINED.mean(axis=0) + 4 * TRAINED.std(axis=0)
    assert reference.distances(far[None]).tolist() == pytest.approx([4], rel=0.01)


def test_a_silent_feature_is_not_infinitely_far() -> None:
    reference = EmbeddingReference(9, np.zeros(2), np.array([1.0, 0.0]))
    assert reference.drift(np.array([0.0, 0.001]), np.array([1.0, 0.0])) < 0.02
    assert np.isfinite(EmbeddingReference(9, np.zeros(2), np.zeros(2)).distances(np.ones((1, 2), np.float32))).all()


def test_a_reference_survives_its_file_and_nothing_else_is_one(reference: EmbeddingReference) -> None:
    read = EmbeddingReference.from_json(reference.to_json())
    assert (read.count, read.held_out_drift) == (reference.count, reference.held_out_drift)
    np.testing.assert_allclose(read.mean, reference.mean, rtol=1e-5)
    np.testing.assert_allclose(read.variance, reference.variance, rtol=1e-5)
    for text in (
        "", "[]", "{}", '{"count": 1, "mean": [1], "variance": [1, 2], "held_out_drift": 0}',
        '{"count": 1, "mean": [1], "variance": [-1], "held_out_drift": 0}',
        '{"count": 1, "mean": [NaN], "variance": [1], "held_out_drift": 0}',
        '{"count": 1, "mean": [[1]], "variance": [[1]], "held_out_drift": 0}',
        '{"count": 1, "mean": [1], "variance": [1], "held_out_drift": NaN}',
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"reference|Expecting"):
            EmbeddingReference.from_json(text)
