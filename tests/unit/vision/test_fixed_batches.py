"""Batches of fixed sizes answer as batches of any size do; tests/gpu has the same on a GPU."""

import numpy as np
import pytest

from enxerto.vision.onnx.fixed_batches import FixedBatches
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import TinyModel

MODEL = OnnxModel(TinyModel(3).data)
NAMES = MODEL.output_names


def images(count: int, seed: int = 0) -> np.ndarray:
    preprocess = MODEL.card.preprocess
    return np.random.default_rng(seed).random((count, 3, preprocess.height, preprocess.width), np.float32)


@pytest.mark.parametrize("parts", [(1,), (2, 1), (4,), (3, 2), (1, 1, 1, 1, 1, 1, 1, 1, 1)])
def test_every_row_is_answered_in_order(parts: tuple[int, ...]) -> None:
    batches = [images(count, seed) for seed, count in enumerate(parts)]
    outputs = FixedBatches(MODEL, (1, 2, 4)).run(batches, NAMES)
    expected = MODEL.run(np.concatenate(batches), NAMES)
    assert set(outputs) == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-6)


def test_a_graph_sees_no_other_size_and_nothing_of_the_batch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, run, seen = FixedBatches(MODEL, (1, 4)), OnnxModel.run, []

    def watched(model: OnnxModel, batch: np.ndarray, names: tuple[str, ...]) -> object:
        seen.append(batch.copy())
        return run(model, batch, names)

    monkeypatch.setattr(OnnxModel, "run", watched)
    first, second = images(4), images(2, 1)
    fixed.run([first], NAMES)
    fixed.run([second], NAMES)
    np.testing.assert_array_equal(seen[0], first)
    np.testing.assert_array_equal(seen[1], np.concatenate([second, np.zeros_like(second)]))


def test_answers_stay_as_they_were_given() -> None:
    fixed = FixedBatches(MODEL, (2,))
    before = fixed.run([images(2)], NAMES)
    kept = {name: values.copy() for name, values in before.items()}
    fixed.run([images(2, 1)], NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(before[name], kept[name])
