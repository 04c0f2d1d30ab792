"""What may be served: graphs that keep their task's contract, and the answers made of their outputs."""

import io
import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from enxerto.vision.geometry import place
from enxerto.vision.onnx.answers import detection_answer, segmentation_answer, style_answer, to_png
from enxerto.vision.onnx.session import ModelCardError, OnnxModel
from enxerto.vision.specs import PreprocessSpec, Resize, Task

TYPES = {
    "FP32": TensorProto.FLOAT,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
    "FP16": TensorProto.FLOAT16,
}
LABELS = ["a", "b", "c"]
GOOD: dict[Task, dict[str, tuple[str, list[Any]]]] = {
    Task.CLASSIFICATION: {"probabilities": ("FP32", ["n", 3])},
    Task.DETECTION: {
        "accepted": ("BOOL", ["n", 100]),
        "boxes": ("FP32", ["n", 100, 4]),
        "scores": ("FP32", ["n", 100]),
        "classes": ("INT64", ["n", 100]),
    },
    Task.SEGMENTATION: {"classes": ("UINT8", ["n", 16, 24]), "confidence": ("FP32", ["n"])},
    Task.STYLE: {"pictures": ("FP32", ["n", 3, "h", "w"])},
}


def spec(resize: Resize = Resize.LETTERBOX, height: int = 16, width: int = 24) -> PreprocessSpec:
    return PreprocessSpec(height, width, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, resize)


def graph(task: Task, outputs: dict[str, tuple[str, list[Any]]], resize: Resize, size: list[Any]) -> bytes:
    """A graph that gives ones of the declared type, one row for each image."""
    nodes, constants = [helper.make_node("Shape", ["images"], ["batch"], start=0, end=1)], []
    for name, (datatype, shape) in outputs.items():
        row = np.array([axis if isinstance(axis, int) else 8 for axis in shape[1:]], np.int64)
        constants.append(numpy_helper.from_array(row, f"{name}_row"))
        one = helper.make_tensor(f"{name}_one", TYPES[datatype], [1], [1])
        nodes.append(helper.make_node("Concat", ["batch", f"{name}_row"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=one))
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *size])],
        [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, (kind, shape) in outputs.items()],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    values = {"labels": LABELS, "preprocess": spec(resize).to_json(), "task": task.value, "provenance": {"by": "hand"}}
    helper.set_model_props(model, {f"enxerto.{key}": json.dumps(value) for key, value in values.items()})
    data: bytes = model.SerializeToString()
    return data


def good(task: Task) -> bytes:
    resize, size = (Resize.FIT, ["h", "w"]) if task is Task.STYLE else (Resize.LETTERBOX, [16, 24])
    return graph(task, GOOD[task], resize, size)


@pytest.mark.parametrize("task", Task)
def test_a_graph_of_every_task_is_read_and_run(task: Task) -> None:
    model = OnnxModel(good(task), threads=1)
    assert (model.card.task, model.card.labels.names) == (task, tuple(LABELS))
    outputs = model.run(np.zeros((2, 3, 16, 24), np.float32))
    assert set(outputs) == set(GOOD[task])
    assert all(len(values) == 2 for values in outputs.values())
    assert [one.name for one in model.card.outputs] == list(outputs)


def test_the_outputs_come_in_the_order_of_the_contract() -> None:
    names = [one.name for one in OnnxModel(good(Task.DETECTION)).card.outputs]
    assert names == ["boxes", "scores", "classes", "accepted"]


def test_a_graph_may_give_an_embedding_and_gives_it_only_when_asked() -> None:
    outputs = {"embedding": ("FP32", ["n", 5]), **GOOD[Task.CLASSIFICATION]}
    model = OnnxModel(graph(Task.CLASSIFICATION, outputs, Resize.LETTERBOX, [16, 24]))
    images = np.zeros((2, 3, 16, 24), np.float32)
    assert model.output_names == ("probabilities", "embedding")
    assert list(model.run(images)) == ["probabilities"]
    assert {name: values.shape for name, values in model.run(images, model.output_names).items()} == {
        "probabilities": (2, 3), "embedding": (2, 5)
    }  # fmt: skip
    assert list(model.run(images, ("embedding",))) == ["embedding"]


@pytest.mark.parametrize(
    ("task", "name", "change"),
    [
        (Task.CLASSIFICATION, "probabilities", ("FP32", ["n", 4])),
        (Task.CLASSIFICATION, "probabilities", ("FP16", ["n", 3])),
        (Task.CLASSIFICATION, "probabilities", ("FP32", [2, 3])),
        (Task.CLASSIFICATION, "embedding", ("FP16", ["n", 5])),
        (Task.CLASSIFICATION, "embedding", ("FP32", ["n", 5, 7])),
        (Task.DETECTION, "embedding", ("FP32", ["n", 5])),
        (Task.DETECTION, "boxes", ("FP32", ["n", 100, 5])),
        (Task.DETECTION, "boxes", ("FP32", ["n", 100])),
        (Task.SEGMENTATION, "classes", ("INT64", ["n", 16, 24])),
        (Task.STYLE, "pictures", ("FP32", ["n", 1, "h", "w"])),
        (Task.STYLE, "extra", ("FP32", ["n"])),
    ],
)
def test_a_graph_that_breaks_its_contract_is_refused(task: Task, name: str, change: tuple[str, list[Any]]) -> None:
    with pytest.raises(ModelCardError, match="output must be"):
        OnnxModel(graph(task, {**GOOD[task], name: change}, Resize.LETTERBOX, [16, 24]))


def test_a_graph_of_another_input_is_refused() -> None:
    with pytest.raises(ModelCardError, match="input must be"):
        OnnxModel(graph(Task.STYLE, GOOD[Task.STYLE], Resize.LETTERBOX, ["h", "w"]))
    with pytest.raises(ModelCardError, match="input must be"):
        OnnxModel(graph(Task.SEGMENTATION, GOOD[Task.SEGMENTATION], Resize.LETTERBOX, [24, 24]))
    with pytest.raises(ModelCardError, match="cannot load"):
        OnnxModel(b"nonsense")


@pytest.mark.parametrize("key", ["labels", "preprocess", "task", "provenance"])
def test_a_file_that_does_not_say_what_it_is_is_refused(key: str) -> None:
    model = onnx.load_from_string(good(Task.CLASSIFICATION))
    kept = {one.key: one.value for one in model.metadata_props if one.key != f"enxerto.{key}"}
    helper.set_model_props(model, kept)
    with pytest.raises(ModelCardError, match=rf"enxerto\.{key}"):
        OnnxModel(model.SerializeToString())
    helper.set_model_props(model, {**kept, f"enxerto.{key}": "7 apples"})
    with pytest.raises(ModelCardError, match="cannot be read"):
        OnnxModel(model.SerializeToString())


def test_boxes_come_back_in_picture_pixels_and_fillers_are_left_out() -> None:
    placement = place(spec(height=100, width=100), 400, 200)
    truth = np.array([[40, 20, 200, 120], [0, 0, 400, 200]], np.float32)
    boxes = np.zeros((1, 4, 4), np.float32)
    boxes[0, :2] = placement.boxes_to_input(truth)
    boxes[0, 2] = [10, 2, 30, 20]  # above the picture, in the border
    outputs = {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.5, 0.4, 0]], np.float32),
        "classes": np.array([[2, 0, 1, -1]], np.int64),
        "accepted": np.array([[True, False, True, False]]),
    }
    answer = detection_answer(outputs, 0, placement)
    np.testing.assert_allclose(answer.boxes, truth, atol=1e-3)
    assert answer.classes.tolist() == [2, 0]
    assert answer.accepted.tolist() == [True, False]
    np.testing.assert_allclose(answer.scores, [0.9, 0.5])


@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (31, 57), (24, 16), (1, 1)])
@pytest.mark.parametrize("resize", [Resize.LETTERBOX, Resize.STRETCH, Resize.CENTER_CROP])
def test_a_mask_comes_back_at_the_size_of_the_picture(resize: Resize, width: int, height: int) -> None:
    placement = place(spec(resize, 32, 32), width, height)
    left, top, right, bottom = placement.inner
    mask = np.full((1, 32, 32), 9, np.uint8)
    mask[0, top:bottom, left:right] = 1
    # The right half of the picture, as far as the network saw it.
    middle = placement.boxes_to_input(np.array([[width / 2, 0, width, height]]))[0, 0]
    mask[0, top:bottom, round(float(middle)) : right] = 2
    answer = segmentation_answer({"classes": mask, "confidence": np.array([0.75], np.float32)}, 0, placement)
    assert answer.classes.shape == (height, width)
    assert answer.confidence == 0.75
    assert set(np.unique(answer.classes)) <= {1, 2}
    if width >= 24:
        assert abs((answer.classes == 2).mean() - 0.5) < 0.05


def test_a_painting_has_the_size_of_the_picture() -> None:
    placement = place(spec(Resize.FIT, 64, 64), 200, 100)
    painted = np.zeros((1, 3, placement.input_height, placement.input_width), np.float32)
    painted[0, 0], painted[0, 1] = 1.5, 0.5
    pixels = style_answer({"pictures": painted}, 0, placement)
    assert pixels.shape == (100, 200, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[255, 128, 0]]
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    with pytest.raises(ValueError, match="without borders"):
        style_answer({"pictures": painted}, 0, place(spec(Resize.LETTERBOX, 64, 64), 200, 100))
