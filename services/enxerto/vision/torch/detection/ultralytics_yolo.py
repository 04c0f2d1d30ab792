"""YOLOv8 and newer, of `ultralytics` (AGPL-3.0: an extra that is asked for by name)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import patches
from ultralytics.utils.loss import v8DetectionLoss

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.candidates import Candidates, clip, every_class
from enxerto.vision.torch.detection.detector import Detector, Target
from enxerto.vision.torch.detection.suppression import MAX_CANDIDATES
from enxerto.vision.torch.detection.yolo_parts import cells, fill_but_head
from enxerto.vision.torch.learner import Stages
from enxerto.vision.torch.weights import LoadedWeights

# The library replaces PIL's `open` for the whole process by one that wants a HEIF decoder for every damaged picture.
Image.open = patches._image_open

_SCORE_FLOOR = 0.01
_GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
"""Weights of the three losses, as `ultralytics` has them by default."""


class UltralyticsDetector(Detector):
    """An anchor-free network of `ultralytics` with its own loss, trained in our loop."""

    iou_threshold = 0.7

    def __init__(self, network: Any, preprocess: PreprocessSpec) -> None:
        super().__init__(preprocess)
        self.network = network
        self._depth = len(network.yaml["backbone"])
        self._strides = [int(stride) for stride in network.stride]

    @property
    def stages(self) -> Stages:
        """The backbone's layers, from one halving of the map to the next."""
        layers = list(self.network.model)[: self._depth]
        halvings = [index for index, layer in enumerate(layers) if _halves(layer)]
        edges = [*halvings, len(layers)]
        cuts = itertools.pairwise(edges)
        return [(f"p{number}", nn.Sequential(*layers[a:b])) for number, (a, b) in enumerate(cuts, start=1)]

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Neck and predictors, but not the head's constant weights, which no loss reaches."""
        *neck, head = list(self.network.model)[self._depth :]
        return [*neck, head.cv2, head.cv3]

    def raw(self, images: torch.Tensor) -> dict[str, Any]:
        """(N, 3, H, W) images in [0, 1] to logits, distances and maps, whatever the mode."""
        *layers, head = self.network.model
        running = self.standardised(images)
        kept: list[torch.Tensor | None] = []
        for layer in layers:
            running = layer(_inputs(layer.f, running, kept))
            kept.append(running if layer.i in self.network.save else None)
        answers: dict[str, Any] = head.forward_head(_inputs(head.f, running, kept), **head.one2many)
        return {**answers, "boxes": answers["boxes"].float(), "scores": answers["scores"].float()}

    def loss_of(self, raw: dict[str, Any], targets: Sequence[Target]) -> torch.Tensor:
        """The task-aligned loss of `ultralytics`, for each image."""
        parts, _ = v8DetectionLoss(self.network).loss(raw, self._labels(raw, targets))
        loss: torch.Tensor = parts.sum() / len(targets)
        return loss

    def candidates_of(self, raw: dict[str, Any]) -> Candidates:
        """Every cell for every class."""
        centres, strides = cells([feature.shape[2:] for feature in raw["feats"]], self._strides, raw["boxes"])
        distances = self.network.model[-1].dfl(raw["boxes"]).transpose(1, 2)
        boxes = torch.cat((centres - distances[..., :2] * strides, centres + distances[..., 2:] * strides), dim=2)
        dense = clip(boxes, *self._input_size(raw))
        return every_class(dense, raw["scores"].sigmoid().transpose(1, 2), _SCORE_FLOOR, MAX_CANDIDATES)

    def _input_size(self, raw: dict[str, Any]) -> tuple[int, int]:
        rows, columns = raw["feats"][0].shape[2:]
        return rows * self._strides[0], columns * self._strides[0]

    def _labels(self, raw: dict[str, Any], targets: Sequence[Target]) -> dict[str, torch.Tensor]:
        height, width = self._input_size(raw)
        device = raw["scores"].device
        numbers = [torch.full((len(one["labels"]),), index, device=device) for index, one in enumerate(targets)]
        boxes = torch.cat([one["boxes"] for one in targets])
        middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        relative = torch.cat((middle, size), dim=1) / boxes.new_tensor([width, height, width, height])
        classes = torch.cat([one["labels"] for one in targets])
        return {"batch_idx": torch.cat(numbers).float(), "cls": classes.float(), "bboxes": relative}


def build_ultralytics(
    name: str, loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec
) -> UltralyticsDetector:
    """A network by the stem of its configuration, such as `yolov8n`; `loaded` may be of other classes.

    Raises:
        WeightsCorruptError: the weights are of another network.
    """
    construct: Any = DetectionModel
    read: Any = yaml_model_load
    network = construct({**read(f"{name}.yaml"), "nc": classes}, verbose=False)
    network.args = _GAINS
    head: Any = network.model[-1]
    if head.end2end or getattr(head, "one2one_cv2", None) is not None:
        # Suppression is in our graph, and a second head that nothing trains would stop data-parallel workers.
        head.end2end = False
        head.fuse()
    if loaded is not None:
        fill_but_head(network, loaded, f"ultralytics/{name}", head=f"model.{len(network.model) - 1}.")
    return UltralyticsDetector(network, preprocess)


def _halves(layer: nn.Module) -> bool:
    convolution = getattr(layer, "conv", None)
    return isinstance(convolution, nn.Conv2d) and convolution.stride == (2, 2)


def _inputs(source: int | list[int], running: torch.Tensor, kept: list[torch.Tensor | None]) -> Any:
    """What a layer is given: the output before it (-1), or those of the layers that its configuration names."""
    if isinstance(source, int):
        return running if source == -1 else kept[source]
    return [running if index == -1 else kept[index] for index in source]
