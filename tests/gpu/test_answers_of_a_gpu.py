"""A replica's predictor on a GPU: the same answers as on a CPU, for batches of every size and several callers."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark_models import export_model
from enxerto.inference.replica.predictor import Predictor
from enxerto.vision.images import ImageLimits
from enxerto.vision.onnx.session import CUDA
from enxerto.vision.onnx.tensorrt import TensorRtMissingError

LIMITS = ImageLimits(2**25, 10**8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(folder, "efficientnet_b0")
    return folder / "model.onnx"


def pictures(count: int) -> list[bytes]:
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return files


def test_batches_of_every_size_are_answered_as_on_a_cpu(model: Path) -> None:
    on_gpu, on_cpu = Predictor(model, 2, LIMITS, device="cuda"), Predictor(model, 2, LIMITS)
    assert on_gpu.providers[0] == CUDA
    assert CUDA not in on_cpu.providers
    files = pictures(33)
    expected = _probabilities(on_cpu, files)
    sizes = (1, 2, 7, 16, 32)
    with ThreadPoolExecutor() as callers:
        answers = list(callers.map(lambda size: _probabilities(on_gpu, files[:size]), sizes))
    for size, rows in zip(sizes, answers, strict=True):
        np.testing.assert_allclose(rows, expected[:size], atol=2e-3)
        assert (rows.argmax(axis=1) == expected[:size].argmax(axis=1)).mean() >= 0.97


def test_a_picture_that_cannot_be_read_leaves_the_others_alone(model: Path) -> None:
    predictor = Predictor(model, 2, LIMITS, device="cuda")
    one, two = pictures(2)
    answer = predictor.encoded([one, b"no picture", two])
    assert [refusal.index for refusal in answer.refusals] == [1]
    assert len(answer.tensors[0].content) == 2 * 12 * 4


def test_tensorrt_answers_as_a_cpu_does_or_is_said_to_be_missing(model: Path, tmp_path: Path) -> None:
    try:
        predictor = Predictor(model, 2, LIMITS, device="cuda", engines=tmp_path / "engines")
    except TensorRtMissingError as error:
        pytest.skip(f"TensorRT was NOT tried: {error}")
    files = pictures(5)
    np.testing.assert_allclose(
        _probabilities(predictor, files), _probabilities(Predictor(model, 2, LIMITS), files), atol=2e-3
    )


def _probabilities(predictor: Predictor, files: list[bytes]) -> np.ndarray:
    answer = predictor.encoded(files, names=["probabilities"])
    (tensor,) = answer.tensors
    return np.frombuffer(tensor.content, np.float32).reshape(len(files), -1)
