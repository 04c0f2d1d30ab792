"""RetinaNet and SSD: every cell of every feature map answers for its anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.candidates import Candidates, clip, decode, every_class
from enxerto.vision.torch.detection.detector import Detector, Target
from enxerto.vision.torch.detection.suppression import MAX_CANDIDATES
from enxerto.vision.torch.learner import Stages

_SCORE_FLOOR = 0.01


@dataclass(frozen=True, slots=True)
class Dense:
    """Answers of a batch.

    Attributes:
        logits: (N, A, classes).
        codes: (N, A, 4), offsets to the anchors.
        anchors: (A, 4), input pixels.
        size: rows and columns of the input.
    """

    logits: torch.Tensor
    codes: torch.Tensor
    anchors: torch.Tensor
    size: tuple[int, int]


class OneStage(Detector):
    """A network of torchvision with anchors on every cell, whose own resizing and selection are not used."""

    fixed_anchors: torch.Tensor | None

    def __init__(
        self, network: nn.Module, stages: Stages, heads: Sequence[nn.Module], preprocess: PreprocessSpec
    ) -> None:
        super().__init__(preprocess)
        self.network = network
        self._stages = list(stages)
        self._heads = list(heads)
        self.iou_threshold = float(cast(Any, network).nms_thresh)
        self.register_buffer("fixed_anchors", None, persistent=False)

    @property
    def stages(self) -> Stages:
        """The backbone's."""
        return self._stages

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Feature pyramid or extra layers, and predictors."""
        return self._heads

    def raw(self, images: torch.Tensor) -> Dense:
        """(N, 3, H, W) images in [0, 1] to dense answers."""
        network = cast(Any, self.network)
        maps = list(network.backbone(self.standardised(images)).values())
        answers: Mapping[str, torch.Tensor] = network.head(maps)
        size = (images.shape[2], images.shape[3])
        anchors = self._anchors(images, maps) if self.fixed_anchors is None else self.fixed_anchors
        return Dense(answers["cls_logits"].float(), answers["bbox_regression"].float(), anchors, size)

    def fix_input(self, height: int, width: int) -> None:
        """Anchors become a constant."""
        with torch.no_grad():
            self.fixed_anchors = None
            self.fixed_anchors = self.raw(self.mean.new_zeros(1, 3, height, width)).anchors

    def _anchors(self, images: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        one = ImageList(images[:1], [(images.shape[2], images.shape[3])])
        return cast(torch.Tensor, cast(Any, self.network).anchor_generator(one, maps)[0])

    def _boxes(self, raw: Dense, weights: tuple[float, float, float, float]) -> torch.Tensor:
        return clip(decode(raw.codes, raw.anchors, weights), *raw.size)


class RetinaNetDetector(OneStage):
    """Focal loss on every anchor (Lin et al. 2017, arXiv:1708.02002)."""

    def loss_of(self, raw: Dense, targets: Sequence[Target]) -> torch.Tensor:
        """Focal loss of the classes and L1 loss of the boxes."""
        answers = {"cls_logits": raw.logits, "bbox_regression": raw.codes}
        losses = cast(Any, self.network).compute_loss(targets, answers, [raw.anchors] * len(targets))
        return cast(torch.Tensor, losses["classification"] + losses["bbox_regression"])

    def candidates_of(self, raw: Dense) -> Candidates:
        """Every anchor for every class."""
        boxes = self._boxes(raw, (1.0, 1.0, 1.0, 1.0))
        return every_class(boxes, raw.logits.sigmoid(), _SCORE_FLOOR, MAX_CANDIDATES)


class SSDDetector(OneStage):
    """Single shot detector (Liu et al. 2016, arXiv:1512.02325); class 0 of the network is the background."""

    def loss_of(self, raw: Dense, targets: Sequence[Target]) -> torch.Tensor:
        """Cross entropy with three hard negatives for each positive, and smooth L1 loss of the boxes."""
        network = cast(Any, self.network)
        shifted = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in targets]
        matches = [self._match(one["boxes"], raw.anchors) for one in targets]
        answers = {"cls_logits": raw.logits, "bbox_regression": raw.codes}
        losses = network.compute_loss(shifted, answers, [raw.anchors] * len(targets), matches)
        return cast(torch.Tensor, losses["classification"] + losses["bbox_regression"])

    def candidates_of(self, raw: Dense) -> Candidates:
        """Every anchor for every class but the background."""
        boxes = self._boxes(raw, cast(Any, self.network).box_coder.weights)
        return every_class(boxes, raw.logits.softmax(dim=-1)[..., 1:], _SCORE_FLOOR, MAX_CANDIDATES)

    def _match(self, boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        return cast(torch.Tensor, cast(Any, self.network).proposal_matcher(box_iou(boxes, anchors)))
