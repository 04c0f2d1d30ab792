"""Suppression of a batch: the same boxes as torchvision's, in torch and in ONNX Runtime."""

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms

from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.torch.detection.candidates import Candidates, clip, decode, every_class, large_enough
from enxerto.vision.torch.detection.suppression import TRANSLATIONS, select

SIDE = 100.0


def random_candidates(images: int, count: int, classes: int, seed: int = 0) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 70
    boxes = torch.cat((corner, corner + 5 + torch.rand(images, count, 2, generator=generator) * 25), dim=2)
    scores = torch.rand(images, count, generator=generator)
    scores[:, ::5] = 0
    return Candidates(boxes, scores, torch.randint(classes, (images, count), generator=generator))


# The graph is exported once.
pytestmark = pytest.mark.xdist_group("suppression")


class Selection(nn.Module):
    def forward(
        self, boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return select(Candidates(boxes, scores, classes), 0.5, SIDE)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    example = random_candidates(2, 300, 3)
    batch = torch.export.Dim("batch", min=1)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Selection(),
            (example.boxes, example.scores, example.classes),
            input_names=["boxes", "scores", "classes"],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
            custom_translation_table=dict(TRANSLATIONS),
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(file)
    return onnxruntime.InferenceSession(file.getvalue())


@pytest.mark.parametrize("images", [1, 2, 5])
def test_onnx_runtime_selects_what_torch_selects(session: onnxruntime.InferenceSession, images: int) -> None:
    some = random_candidates(images, 300, 3, seed=images)
    expected = Selection()(some.boxes, some.scores, some.classes)
    feeds = {"boxes": some.boxes.numpy(), "scores": some.scores.numpy(), "classes": some.classes.numpy()}
    for mine, theirs in zip(expected, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)


def test_a_picture_without_boxes_gets_none(session: onnxruntime.InferenceSession) -> None:
    some = random_candidates(2, 300, 3)
    some.scores[0] = 0
    feeds = {"boxes": some.boxes.numpy(), "scores": some.scores.numpy(), "classes": some.classes.numpy()}
    boxes, scores, classes = session.run(None, feeds)
    assert (classes[0] == -1).all()
    assert not boxes[0].any()
    assert not scores[0].any()
    assert (classes[1] >= 0).any()


def test_each_picture_is_answered_as_torchvision_would() -> None:
    some = random_candidates(3, 200, 4)
    boxes, scores, classes = select(some, 0.5, SIDE)
    for row in range(3):
        real = some.scores[row] > 0
        kept = batched_nms(some.boxes[row][real], some.scores[row][real], some.classes[row][real], 0.5)
        kept = kept[:MAX_DETECTIONS]
        assert (classes[row] >= 0).sum() == len(kept)
        torch.testing.assert_close(boxes[row, : len(kept)], some.boxes[row][real][kept])
        torch.testing.assert_close(scores[row, : len(kept)], some.scores[row][real][kept])
        assert classes[row, : len(kept)].equal(some.classes[row][real][kept])


def test_few_candidates_are_filled_up_to_the_contract() -> None:
    boxes, scores, classes = select(random_candidates(2, 7, 2), 0.5, SIDE)
    assert (boxes.shape, scores.shape, classes.shape) == ((2, 100, 4), (2, 100), (2, 100))
    assert (classes[:, 7:] == -1).all()


def test_every_class_of_a_box_is_a_candidate() -> None:
    boxes = torch.tensor([[[0.0, 0, 1, 1], [2, 2, 3, 3]]])
    some = every_class(boxes, torch.tensor([[[0.9, 0.005], [0.2, 0.8]]]), floor=0.01, limit=3)
    assert some.scores.tolist() == [[pytest.approx(0.9), pytest.approx(0.8), pytest.approx(0.2)]]
    assert some.classes.tolist() == [[0, 1, 0]]
    assert some.boxes[0, :, 0].tolist() == [0, 2, 2]


def test_boxes_are_decoded_and_cut_as_by_torchvision() -> None:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.ops import clip_boxes_to_image

    torch.manual_seed(0)
    anchors = torch.rand(50, 2).mul(60).repeat(1, 2) + torch.tensor([0, 0, 20.0, 30])
    codes, weights = torch.randn(50, 4) * 3, (10.0, 10.0, 5.0, 5.0)
    expected = BoxCoder(weights).decode_single(codes, anchors)
    decoded = decode(codes, anchors, weights)
    torch.testing.assert_close(decoded, expected)
    torch.testing.assert_close(clip(decoded, 50, 80), clip_boxes_to_image(expected, (50, 80)))
    assert large_enough(torch.tensor([[0.0, 0, 5, 1], [0, 0, 5, 5]]), 2).tolist() == [False, True]
