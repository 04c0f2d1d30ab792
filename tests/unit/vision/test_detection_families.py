"""Every family: a loss that reaches what learns, and a graph that answers as torch does."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import box_iou

from enxerto.kernel.errors import FailedPreconditionError, InvalidArgumentError
from enxerto.vision.catalogue import get_facts
from enxerto.vision.contracts import CONTRACTS, MAX_DETECTIONS, Outputs
from enxerto.vision.finetuning import FinetuneSpec, QuantizationMode, Weights
from enxerto.vision.onnx.quantization import quantize
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import PreprocessSpec, Resize, Task
from enxerto.vision.torch.base_models import ChainBackbone
from enxerto.vision.torch.detection import families, grafted
from enxerto.vision.torch.detection.candidates import Candidates
from enxerto.vision.torch.detection.detector import Detector, ServedDetector, Target
from enxerto.vision.torch.detection.families import build_detector
from enxerto.vision.torch.export import export, torch_network
from enxerto.vision.torch.weights import WeightsSources

SIDE = 96
CLASSES = ("circle", "square", "ring")
GRAFTED = ("fasterrcnn", "retinanet", "ssd", "ssdlite")
WHOLE = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "yolov8n",
    "yolo11n",
    "yolox_nano",
    "yolov9_t",
)
PREPROCESS = PreprocessSpec(SIDE, SIDE, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Resize.LETTERBOX)


def tiny_backbone() -> ChainBackbone:
    channels = (8, 12, 16, 24, 32)
    stages = [
        (
            f"c{number}",
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()),
        )
        for number, (before, after) in enumerate(zip((3, *channels), channels, strict=False), start=1)
    ]
    return ChainBackbone(stages, nn.AdaptiveAvgPool2d(1), channels[-1], name="tiny").eval()


def graft(family: str) -> Detector:
    torch.manual_seed(0)
    return grafted.BUILDERS[family](tiny_backbone(), len(CLASSES), PREPROCESS).eval()


def side_of(name: str) -> int:
    """Of the input: SSD300's last layers would have nothing left to look at."""
    return 300 if name == "ssd300_vgg16" else SIDE


def build(name: str) -> Detector:
    facts = get_facts(name)
    if facts.required_extra and importlib.util.find_spec(facts.required_extra) is None:
        pytest.skip(f"needs the extra {facts.required_extra}")
    spec = FinetuneSpec.with_defaults(name, task=Task.DETECTION, weights=Weights.NONE, image_size=side_of(name), seed=3)
    return build_detector(spec, facts, len(CLASSES), WeightsSources(download=False)).detector


def pictures(side: int) -> torch.Tensor:
    """(8, 3, side, side), in [0, 1]. A random network is sane for these only: deep inside, what it makes of others is
    as far from the statistics of these as its many layers can take it."""
    return torch.rand(8, 3, side, side, generator=torch.Generator().manual_seed(0))


def outspoken(detector: Detector, side: int = SIDE) -> Detector:
    """With scores that are far from each other, from 0 and from 1: random predictors answer the same everywhere.

    Equal scores may stand in any order, and each may suppress the other; so may numbers that rounding moves past each
    other. Neither says whether a graph is right, so that the network must have few of both.
    """
    torch.manual_seed(1)
    named = [pair for head in detector.heads for pair in head.named_modules()]
    # YOLO's integral over distances has weights that nothing learns: the distances.
    heads = [layer for name, layer in named if isinstance(layer, nn.Conv2d | nn.Linear) and "dfl" not in name]
    for layer in heads:
        with torch.no_grad():
            if layer.bias is not None and layer.bias.mean() < -2:
                layer.bias.normal_(std=0.5)
    for layer in detector.modules():
        # Statistics of real activations, without which a deep random network forgets its input.
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
        # Near the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1): else 16 blocks make 1e-3 out of 1e-7.
        if isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, 0.2)
    hooks = [layer.register_forward_hook(Scaled()) for layer in heads]
    with torch.no_grad():
        detector.train()
        detector.candidates_of(detector.raw(pictures(side)))
    for hook in hooks:
        hook.remove()
    return detector.eval()


class Scaled:
    """Gives a layer answers of unit variance, by the first batch that it sees (Mishkin and Matas 2016,
    arXiv:1511.06422): with larger ones dozens of scores are exactly 1."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, layer: nn.Conv2d | nn.Linear, _given: object, answer: torch.Tensor) -> torch.Tensor:
        if self.done:
            return answer
        self.done = True
        bias = torch.zeros(()) if layer.bias is None else layer.bias
        shift = bias.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) and layer.bias is not None else bias
        scale = (answer - shift).std()
        layer.weight.div_(scale)
        return (answer - shift) / scale + shift


def targets() -> list[Target]:
    boxes = torch.tensor([[5.0, 5, 40, 50], [20, 20, 80, 90]])
    nothing: Target = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)}
    return [{"boxes": boxes, "labels": torch.tensor([0, 2])}, nothing]


def assert_learns(detector: Detector, side: int = SIDE) -> None:
    """A finite loss in both modes, and a gradient for all that stages and heads have."""
    owned = [module for _, module in detector.stages] + list(detector.heads)
    detector.requires_grad_(False)
    for module in owned:
        module.requires_grad_(True)
    images = torch.rand(2, 3, side, side)
    for mode in (False, True):
        detector.train(mode)
        loss = detector(images, targets())
        assert torch.isfinite(loss)
        assert loss.shape == ()
        # What says whether modules train is as it was before.
        assert all(module.training is mode for module in detector.modules())
    loss.backward()
    without = [name for name, one in detector.named_parameters() if one.requires_grad and one.grad is None]
    # Data-parallel workers wait for every gradient.
    assert not without
    loss = detector(images, [targets()[1], targets()[1]])
    assert torch.isfinite(loss)


def assert_same_answers(detector: Detector, file: Path, side: int = SIDE) -> None:
    served = ServedDetector(outspoken(detector, side).requires_grad_(False), torch.full((3,), 0.3), side, side).eval()
    assert not left_behind(served)
    preprocess = replace(PREPROCESS, width=side, height=side)
    export(served, file, task=Task.DETECTION, class_names=CLASSES, preprocess=preprocess, provenance={})
    model, reference = OnnxModel(file, threads=1), torch_network(served, Task.DETECTION)
    for images in (1, 3):
        batch = pictures(side)[:images].numpy()
        mine, theirs = reference(batch), model.run(batch)
        found = mine["classes"] >= 0
        assert found.any()
        assert mine["boxes"].shape == (images, MAX_DETECTIONS, 4)
        assert list(theirs) == [one.name for one in CONTRACTS[Task.DETECTION]]
        # A random network has boxes that overlap by the threshold and scores that are equal, to the last bit.
        assert share_found_again(mine, theirs) > 0.95
        assert share_found_again(theirs, mine) > 0.95
        assert mine["boxes"].min() >= 0
        assert mine["boxes"].max() <= side


def left_behind(module: nn.Module) -> list[str]:
    """What would stay on the CPU when the module moves to a GPU: tensors of our own classes that are no buffers."""
    found = []
    for name, part in module.named_modules():
        if not type(part).__module__.startswith("enxerto."):
            continue
        for attribute, value in vars(part).items():
            held = [value, *value] if isinstance(value, list | tuple) else [value]
            if any(isinstance(one, torch.Tensor) for one in held):
                found.append(f"{name}.{attribute}")
    return found


def share_found_again(mine: Outputs, theirs: Outputs) -> float:
    """Of the boxes: with their score, their class and whether they are accepted, in whatever order."""

    def scaled(outputs: Outputs) -> np.ndarray:
        """Rows that are the same when no number differs by more than 1."""
        columns = (outputs["scores"] / 1e-3, 1e3 * outputs["classes"], 1e3 * outputs["accepted"])
        return np.concatenate([outputs["boxes"] / 0.05, np.stack(columns, axis=2)], axis=2)

    nearest = np.abs(scaled(mine)[:, :, None] - scaled(theirs)[:, None]).max(axis=3).min(axis=2)
    share: float = (nearest < 1)[mine["classes"] >= 0].mean()
    return share


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # What the libraries of the extras do is not ours to repair.
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("family", GRAFTED)
def test_a_loss_reaches_all_of_a_grafted_detector(family: str) -> None:
    detector = graft(family)
    assert [name for name, _ in detector.stages] == ["c1", "c2", "c3", "c4", "c5"]
    assert_learns(detector)


@pytest.mark.parametrize(
    "family",
    [
        "fasterrcnn",
        pytest.param("retinanet", marks=pytest.mark.slow),
        pytest.param("ssd", marks=pytest.mark.slow),
        "ssdlite",
    ],
)
def test_a_grafted_detector_answers_in_onnx_as_in_torch(family: str, tmp_path: Path) -> None:
    assert_same_answers(graft(family), tmp_path / "model.onnx")


# A random network of two stages proposes other boxes at the least rounding, so that its answers in INT8 say nothing.
SMALLER = [
    ("ssdlite", QuantizationMode.DYNAMIC_INT8),
    ("ssdlite", QuantizationMode.STATIC_INT8),
    ("ssdlite", QuantizationMode.FP16),
    ("fasterrcnn", QuantizationMode.FP16),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "mode"), SMALLER)
def test_a_smaller_detector_finds_nearly_the_same(family: str, mode: QuantizationMode, tmp_path: Path) -> None:
    detector = outspoken(graft(family)).requires_grad_(False)
    served = ServedDetector(detector, torch.full((3,), 0.3), SIDE, SIDE).eval()
    file, smaller = tmp_path / "model.onnx", tmp_path / "smaller.onnx"
    export(served, file, task=Task.DETECTION, class_names=CLASSES, preprocess=PREPROCESS, provenance={})
    images = np.random.default_rng(0).random((4, 3, SIDE, SIDE), np.float32)
    quantize(file, smaller, mode, images)
    before, after = OnnxModel(file), OnnxModel(smaller)
    assert after.card == before.card
    expected, actual = before.run(images), after.run(images)
    assert {name: values.dtype for name, values in actual.items()} == {n: v.dtype for n, v in expected.items()}
    assert (expected["classes"] >= 0).any()
    assert best_overlaps(expected, actual).mean() > 0.8


def best_overlaps(expected: Outputs, actual: Outputs) -> np.ndarray:
    """Intersection over union of each expected object with the nearest one of its class that was found."""
    best = []
    for row, classes in enumerate(expected["classes"]):
        mine, theirs = torch.from_numpy(expected["boxes"][row]), torch.from_numpy(actual["boxes"][row])
        same = torch.from_numpy(classes[:, None] == actual["classes"][row][None])
        best.append((box_iou(mine, theirs) * same).amax(dim=1).numpy()[classes >= 0])
    return np.concatenate(best)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_reaches_all_of_a_whole_detector(name: str) -> None:
    assert_learns(build(name), side_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_detector_answers_in_onnx_as_in_torch(name: str, tmp_path: Path) -> None:
    assert_same_answers(build(name), tmp_path / "model.onnx", side_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_catalogue_lists_the_stages_in_order(name: str) -> None:
    detector = build(name)
    facts = get_facts(name)
    names = tuple(stage for stage, _ in detector.stages)
    assert facts.stages == names
    # No parameter is in two stages, or in a stage and a head.
    owned = [one for _, stage in detector.stages for one in stage.parameters()]
    owned += [one for head in detector.heads for one in head.parameters()]
    assert len(owned) == len({id(one) for one in owned})


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "ssdlite320_mobilenet_v3_large",
        pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", marks=pytest.mark.slow),
    ],
)
def test_a_random_backbone_tells_pictures_and_places_apart(name: str) -> None:
    """Where all is alike rounding decides which boxes are the best, and no export answers as its network does."""
    detector, side = build(name), side_of(name)
    network: Any = detector.network
    # Neighbouring pixels of pictures are alike.
    images = nn.functional.interpolate(torch.rand(2, 3, side // 12, side // 12), size=(side, side), mode="bilinear")
    with torch.inference_mode():
        maps = list(network.backbone(detector.standardised(images)).values())
    for one in maps:
        assert 0.1 < float(one.std()) < 10
        assert float((one[0] - one[1]).std()) > 0.3 * float(one.std())
    for one in maps[:2]:
        assert float(one.std(dim=(2, 3)).mean()) > 0.3 * float(one.std())


def test_retinanet_answers_as_torchvision_does() -> None:
    detector = outspoken(graft("retinanet"))
    network: Any = detector.network
    network.score_thresh, network.topk_candidates, network.detections_per_img = 0.01, 1000, MAX_DETECTIONS
    images = torch.rand(2, 3, SIDE, SIDE)
    served = ServedDetector(detector, torch.full((3,), 0.3), SIDE, SIDE).eval()
    with torch.inference_mode():
        boxes, scores, classes, _ = served(images)
        raw = detector.raw(images)
        maps = list(network.backbone(detector.standardised(images)).values())
        counts = [one.shape[2] * one.shape[3] * 9 for one in maps]
        split = {"cls_logits": raw.logits.split(counts, 1), "bbox_regression": raw.codes.split(counts, 1)}
        anchors = [list(raw.anchors.split(counts))] * 2
        expected = network.postprocess_detections(split, anchors, [(SIDE, SIDE)] * 2)
    assert_as_torchvision(boxes, scores, classes, expected, first_class=0)


def test_faster_rcnn_answers_as_torchvision_does() -> None:
    detector = outspoken(graft("fasterrcnn"))
    network: Any = detector.network
    network.rpn._post_nms_top_n["testing"] = 300
    images = torch.rand(2, 3, SIDE, SIDE)
    served = ServedDetector(detector, torch.full((3,), 0.3), SIDE, SIDE).eval()
    with torch.inference_mode():
        boxes, scores, classes, _ = served(images)
        standard = detector.standardised(images)
        # Its own resizing leaves pictures of this size alone.
        network.transform.min_size, network.transform.max_size = (SIDE,), SIDE
        network.transform.image_mean, network.transform.image_std = [0.0] * 3, [1.0] * 3
        expected = network(list(standard))
    assert_as_torchvision(boxes, scores, classes, expected, first_class=1)


def assert_as_torchvision(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, expected: list[dict[str, Any]], first_class: int
) -> None:
    for row, one in enumerate(expected):
        count = len(one["scores"])
        assert count > 10
        assert int((classes[row] >= 0).sum()) == count
        torch.testing.assert_close(scores[row, :count], one["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(boxes[row, :count], one["boxes"], atol=1e-2, rtol=0)
        assert classes[row, :count].equal(one["labels"] - first_class)


def test_a_wrong_side_is_refused() -> None:
    spec = FinetuneSpec.with_defaults("ssdlite", task=Task.DETECTION, weights=Weights.NONE, image_size=100)
    with pytest.raises(InvalidArgumentError, match="multiple of 32"):
        build_detector(spec, get_facts("ssdlite"), 3, WeightsSources(download=False))


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
def test_an_encoder_with_its_size_built_in_takes_that_of_the_detector() -> None:
    encoder = "timm_test_coatnet"
    spec = FinetuneSpec.with_defaults("ssdlite", task=Task.DETECTION, encoder=encoder, weights=Weights.NONE)
    built = build_detector(spec, get_facts("ssdlite"), 3, WeightsSources(download=False))
    assert get_facts(encoder).preprocess.height != built.preprocess.height == 320
    built.detector.raw(torch.rand(1, 3, 320, 320))


def test_a_side_that_leaves_the_last_layers_nothing_is_refused() -> None:
    sources = WeightsSources(download=False)
    least = FinetuneSpec.with_defaults("ssd300_vgg16", task=Task.DETECTION, weights=Weights.NONE, image_size=288)
    build_detector(least, get_facts("ssd300_vgg16"), 3, sources).detector.raw(torch.rand(1, 3, 288, 288))
    less = FinetuneSpec.with_defaults("ssd300_vgg16", task=Task.DETECTION, weights=Weights.NONE, image_size=256)
    with pytest.raises(InvalidArgumentError, match="at least 288"):
        build_detector(less, get_facts("ssd300_vgg16"), 3, sources)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[[str], Any] = lambda name: None  # noqa: E731
    monkeypatch.setattr(families.importlib.util, "find_spec", found)
    spec = FinetuneSpec.with_defaults("yolov8n", task=Task.DETECTION, weights=Weights.NONE)
    with pytest.raises(FailedPreconditionError, match=r"enxerto\[ultralytics\]"):
        build_detector(spec, get_facts("yolov8n"), 3, WeightsSources(download=False))


def test_the_accepted_reach_their_own_classes_threshold() -> None:
    class Scripted(Detector):
        def raw(self, images: torch.Tensor) -> torch.Tensor:
            return images

        def candidates_of(self, raw: torch.Tensor) -> Candidates:
            boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]])
            return Candidates(boxes, torch.tensor([[0.9, 0.6, 0.6]]), torch.tensor([[0, 1, 2]]))

    served = ServedDetector(Scripted(PREPROCESS), torch.tensor([0.95, 0.5, 0.6]), SIDE, SIDE)
    _, scores, classes, accepted = served(torch.zeros(1, 3, SIDE, SIDE))
    assert classes[0, :4].tolist() == [0, 1, 2, -1]
    assert accepted[0, :4].tolist() == [False, True, True, False]
    assert scores[0, 3:].sum() == 0
