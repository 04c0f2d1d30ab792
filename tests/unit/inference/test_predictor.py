"""A replica's batches, without Ray."""

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.inference.domain import AnswerForm
from enxerto.inference.replica.predictor import PIXELS_PER_THREAD, Predictor, ShapeError
from enxerto.vision.images import ImageLimits, load, to_batch
from enxerto.vision.onnx.session import ModelCardError, OnnxModel
from fakes.tiny_onnx import LABELS, SIZE, TinyModel, TinyNegative
from inference_images import BAD, GOOD, encode

TINY = TinyModel()


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    path = tmp_path / "model.onnx"
    path.write_bytes(TINY.data)
    return Predictor(path, 2, ImageLimits(10**6, 10**6))


def test_good_images_are_answered_in_order_and_bad_ones_named(predictor: Predictor) -> None:
    good, bad = list(GOOD.values()), [image for image, _ in BAD.values() if image]
    contents = [image for pair in zip(good, cycle(bad), strict=False) for image in pair]
    answer = predictor.encoded(contents)
    assert [refusal.index for refusal in answer.refusals] == list(range(1, len(contents), 2))
    classifier = OnnxModel(TINY.data)
    images = to_batch([load(image, classifier.card.preprocess) for image in contents[::2]])
    expected = classifier.run(images)["probabilities"]
    rows = np.frombuffer(answer.tensors[0].content, "<f4").reshape(-1, len(LABELS))
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_a_batch_of_bad_images_only(predictor: Predictor) -> None:
    answer = predictor.encoded([b"no", b"image"])
    assert (answer.tensors, answer.pictures, len(answer.refusals)) == ((), (), 2)


def test_parts_of_a_tensor_are_answered_in_order(predictor: Predictor) -> None:
    images = np.random.default_rng(0).random((5, *predictor.row_shape), np.float32)
    answer = predictor.tensor([images[:2].tobytes(), images[2:].tobytes()], images.shape)
    rows = np.frombuffer(answer.tensors[0].content, "<f4").reshape(5, -1)
    np.testing.assert_allclose(rows, OnnxModel(TINY.data).run(images)["probabilities"], atol=1e-6)


def test_a_large_batch_goes_through_the_graph_in_even_parts(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).random((1700, *predictor.row_shape), np.float32)
    expected = OnnxModel(TINY.data).run(images)["probabilities"]
    run, sizes = OnnxModel.run, []
    monkeypatch.setattr(OnnxModel, "run", lambda self, part, names: sizes.append(len(part)) or run(self, part, names))
    answer = predictor.tensor([images.tobytes()], images.shape)
    np.testing.assert_allclose(np.frombuffer(answer.tensors[0].content, "<f4").reshape(1700, -1), expected, atol=1e-6)
    at_once = 2 * PIXELS_PER_THREAD // (SIZE * SIZE)
    assert sum(sizes) == 1700
    assert max(sizes) <= at_once
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("count", "given"), [(1, [1]), (3, [4]), (8, [8]), (32, [32]), (33, [32, 1]), (70, [32, 32, 8])]
)
def test_a_gpu_sees_few_sizes_of_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, given: list[int]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(TINY.data)
    images = np.random.default_rng(0).random((count, 3, SIZE, SIZE), np.float32)
    expected = OnnxModel(TINY.data).run(images)["probabilities"]
    run, sizes = OnnxModel.run, []
    monkeypatch.setattr(OnnxModel, "on_cpu", False)
    monkeypatch.setattr(OnnxModel, "run", lambda self, part, names: sizes.append(len(part)) or run(self, part, names))
    predictor = Predictor(path, 2, ImageLimits())
    assert sizes == [1, 2, 4, 8, 16, 32]
    answer = predictor.tensor([images.tobytes()], images.shape)
    assert sizes[6:] == given
    np.testing.assert_allclose(np.frombuffer(answer.tensors[0].content, "<f4").reshape(count, -1), expected, atol=1e-6)


def test_a_gpu_sees_smaller_batches_of_large_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = TinyModel(size=800)
    path = tmp_path / "model.onnx"
    path.write_bytes(large.data)
    run, sizes = OnnxModel.run, []
    monkeypatch.setattr(OnnxModel, "on_cpu", False)
    monkeypatch.setattr(OnnxModel, "run", lambda self, part, *names: sizes.append(len(part)) or run(self, part, *names))
    predictor = Predictor(path, 1, ImageLimits())
    assert sizes == [1, 2, 4]
    images = np.zeros((6, 3, 800, 800), np.float32)
    predictor.tensor([images.tobytes()], images.shape)
    assert sizes == [1, 2, 4, 4, 2]


def test_pixels_and_half_precision_are_the_same_images(predictor: Predictor) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    planes = (pixels.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    expected = OnnxModel(TINY.data).run(planes)["probabilities"]
    for datatype, images, tolerance in (("UINT8", pixels, 1e-5), ("FP16", planes.astype(np.float16), 1e-3)):
        answer = predictor.tensor([images[:3].tobytes(), images[3:].tobytes()], images.shape, datatype)
        rows = np.frombuffer(answer.tensors[0].content, "<f4").reshape(5, -1)
        np.testing.assert_allclose(rows, expected, atol=tolerance)
        assert answer.decode_s > 0


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [("UINT8", (1, 3, 16, 16)), ("UINT8", (1, 8, 8, 3)), ("FP64", (1, 3, 16, 16)), ("UINT8", (3,))],
)
def test_a_tensor_of_another_datatype_is_refused(predictor: Predictor, datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        predictor.tensor([bytes(3 * 16 * 16)], shape, datatype)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 16, 16, 3), (0, 3, 16, 16), (3, 16, 16)])
def test_a_tensor_of_another_shape_is_refused(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        predictor.tensor([bytes(4 * 3 * 16 * 16)], shape)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelCardError):
        Predictor(path, 1, ImageLimits())


def test_what_does_not_fit_a_message_is_refused_and_the_rest_answered(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(TinyNegative().data)
    painter = Predictor(path, 1, ImageLimits(), max_answer_bytes=50_000)
    small, large = (encode(Image.new("RGB", size), "PNG") for size in ((32, 16), (400, 300)))
    answer = painter.encoded([small, large, small], AnswerForm.TENSORS)
    assert [(picture.width, picture.height) for picture in answer.pictures] == [(32, 16)] * 2
    assert [(bad.index, bad.reason) for bad in answer.refusals] == [(1, "ANSWER_TOO_LARGE")]
