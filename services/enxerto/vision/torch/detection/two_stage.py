"""Faster R-CNN: proposals of a first network are classified by a second (Ren et al. 2015, arXiv:1506.01497).

torchvision selects proposals image by image, in shapes that differ; that is exported for one image at a time. Here both
selections are dense and of the whole batch: a fixed number of proposals, of which those that are none score 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import permute_and_flatten
from torchvision.ops import roi_align

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.candidates import Candidates, clip, decode, every_class, large_enough
from enxerto.vision.torch.detection.detector import Detector, Target
from enxerto.vision.torch.detection.suppression import MAX_CANDIDATES, suppress_by_class
from enxerto.vision.torch.learner import Stages

PROPOSALS: Final = 300
"""Of an image that the second network sees when it answers: what the paper's authors use, section 4.1. torchvision's
1000 cost three times as much and gain little."""

_SMALLEST_PROPOSAL: Final = 1e-3
_SMALLEST_BOX: Final = 1e-2
_SCORE_FLOOR: Final = 0.05


@dataclass(frozen=True, slots=True)
class Maps:
    """The feature pyramid of a batch, and the size of its input."""

    features: dict[str, torch.Tensor]
    size: tuple[int, int]
    images: torch.Tensor


class TwoStage(Detector):
    """torchvision's Faster R-CNN, whose own resizing and selection are not used; class 0 is the background."""

    fixed_anchors: torch.Tensor | None

    def __init__(
        self, network: FasterRCNN, stages: Stages, heads: Sequence[nn.Module], preprocess: PreprocessSpec
    ) -> None:
        super().__init__(preprocess)
        self.network = network
        self._stages = list(stages)
        self._heads = list(heads)
        self.register_buffer("fixed_anchors", None, persistent=False)
        self.iou_threshold = float(cast(Any, network.roi_heads).nms_thresh)

    @property
    def stages(self) -> Stages:
        """The backbone's."""
        return self._stages

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Feature pyramid, proposals and predictors."""
        return self._heads

    def raw(self, images: torch.Tensor) -> Maps:
        """(N, 3, H, W) images in [0, 1] to the feature pyramid."""
        standard = self.standardised(images)
        return Maps(self.network.backbone(standard), (images.shape[2], images.shape[3]), standard)

    def loss_of(self, raw: Maps, targets: Sequence[Target]) -> torch.Tensor:
        """Losses of both networks, each of classes and boxes."""
        rpn, heads = cast(Any, self.network.rpn), cast(Any, self.network.roi_heads)
        shifted = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in targets]
        listed = ImageList(raw.images, [raw.size] * len(targets))
        with _asked_for_losses(rpn, heads):
            proposals, first = rpn(listed, raw.features, shifted)
            _, second = heads(raw.features, proposals, listed.image_sizes, shifted)
        return torch.stack([*first.values(), *second.values()]).sum()

    def candidates_of(self, raw: Maps) -> Candidates:
        """Every proposal with a box for every class."""
        proposals, real = self._proposals(raw)
        logits, codes = self._predict(raw, proposals)
        count = logits.shape[2] - 1
        codes = codes.reshape(*codes.shape[:2], count + 1, 4)[:, :, 1:]
        weights = cast(Any, self.network.roi_heads).box_coder.weights
        boxes = clip(decode(codes, proposals.unsqueeze(2), weights), *raw.size)
        scores = logits.softmax(dim=-1)[..., 1:] * real.unsqueeze(2) * large_enough(boxes, _SMALLEST_BOX)
        return every_class(boxes, scores, _SCORE_FLOOR, MAX_CANDIDATES)

    def fix_input(self, height: int, width: int) -> None:
        """Anchors become constants."""
        with torch.no_grad():
            self.fixed_anchors = None
            self.fixed_anchors = torch.cat(self._anchors(self.raw(self.mean.new_zeros(1, 3, height, width))))

    def _anchors(self, raw: Maps) -> list[torch.Tensor]:
        """(anchors, 4) of each level."""
        generator = cast(Any, self.network.rpn).anchor_generator
        maps = list(raw.features.values())
        everywhere = self.fixed_anchors
        if everywhere is None:
            everywhere = generator(ImageList(raw.images[:1], [raw.size]), maps)[0]
        per_cell = generator.num_anchors_per_location()
        counts = [each * one.shape[2] * one.shape[3] for each, one in zip(per_cell, maps, strict=True)]
        return list(everywhere.split(counts))

    def _proposals(self, raw: Maps) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, P, 4) boxes, and (N, P) bool whether each is one."""
        rpn = cast(Any, self.network.rpn)
        objectness, codes = rpn.head(list(raw.features.values()))
        boxes, scores, levels = [], [], []
        for level, (logits, offsets, anchors) in enumerate(zip(objectness, codes, self._anchors(raw), strict=True)):
            per_cell, (rows, columns) = logits.shape[1], logits.shape[2:]
            flat = permute_and_flatten(logits.float(), logits.shape[0], per_cell, 1, rows, columns).squeeze(2)
            own = permute_and_flatten(offsets.float(), logits.shape[0], per_cell, 4, rows, columns)
            best, index = flat.topk(min(rpn._pre_nms_top_n["testing"], flat.shape[1]), dim=1)
            chosen = own.gather(1, index.unsqueeze(2).expand(-1, -1, 4))
            decoded = clip(decode(chosen, anchors[index], (1.0, 1.0, 1.0, 1.0)), *raw.size)
            boxes.append(decoded)
            scores.append(best.sigmoid() * large_enough(decoded, _SMALLEST_PROPOSAL))
            levels.append(torch.full_like(index, level))
        every, certain = torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
        kept = suppress_by_class(every, certain, torch.cat(levels, dim=1), rpn.nms_thresh, float(max(raw.size)))
        certain, index = (certain * kept).topk(min(PROPOSALS, certain.shape[1]), dim=1)
        return every.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), certain > 0

    def _predict(self, raw: Maps, proposals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, P, classes + 1) logits and (N, P, 4 (classes + 1)) offsets."""
        heads = cast(Any, self.network.roi_heads)
        pooled = self._pool(raw, proposals)
        logits, codes = heads.box_predictor(heads.box_head(pooled))
        first = proposals.shape[:2]
        return logits.float().reshape(*first, -1), codes.float().reshape(*first, -1)

    def _pool(self, raw: Maps, proposals: torch.Tensor) -> torch.Tensor:
        """(N x P, channels, 7, 7) features of the proposals, each from the level of its size."""
        pool = cast(Any, self.network.roi_heads).box_roi_pool
        maps = [raw.features[name] for name in pool.featmap_names if name in raw.features]
        scales = [2.0 ** round(math.log2(one.shape[3] / raw.size[1])) for one in maps]
        images = torch.arange(proposals.shape[0], device=proposals.device, dtype=proposals.dtype)
        numbers = images.view(-1, 1, 1).expand(-1, proposals.shape[1], 1)
        regions = torch.cat((numbers, proposals), dim=2).flatten(0, 1)
        areas = (proposals[..., 2] - proposals[..., 0]) * (proposals[..., 3] - proposals[..., 1])
        # Feature Pyramid Networks (Lin et al. 2017, arXiv:1612.03144), equation 1.
        level = torch.floor(pool.canonical_level + torch.log2(areas.sqrt() / pool.canonical_scale) + 1e-6)
        finest = -math.log2(scales[0])
        level = level.clamp(finest, -math.log2(scales[-1])).flatten() - finest
        align = partial(roi_align, output_size=pool.output_size, sampling_ratio=pool.sampling_ratio)
        by_level = list(zip(maps, scales, strict=True))
        if torch.compiler.is_exporting():
            return _pool_everywhere(align, by_level, regions, level)
        pooled = regions.new_zeros(len(regions), maps[0].shape[1], *pool.output_size)
        for index, (features, scale) in enumerate(by_level):
            here = torch.where(level == index)[0]
            pooled[here] = align(features.float(), regions[here], spatial_scale=scale)
        return pooled


def _pool_everywhere(
    align: Callable[..., torch.Tensor],
    by_level: Sequence[tuple[torch.Tensor, float]],
    regions: torch.Tensor,
    level: torch.Tensor,
) -> torch.Tensor:
    """Every region on every level, of which the right one is chosen: no shape depends on values."""
    pooled: torch.Tensor | None = None
    for index, (features, scale) in enumerate(by_level):
        here = align(features.float(), regions, spatial_scale=scale)
        pooled = here if pooled is None else torch.where((level == index).view(-1, 1, 1, 1), here, pooled)
    return cast(torch.Tensor, pooled)


@contextmanager
def _asked_for_losses(*modules: nn.Module) -> Iterator[None]:
    """torchvision's modules give losses in training mode only; the modules inside keep the mode they have."""
    before = [module.training for module in modules]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
