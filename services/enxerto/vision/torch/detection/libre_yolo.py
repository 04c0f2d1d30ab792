"""YOLOX and YOLOv9 of `libreyolo` (MIT: an extra)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from libreyolo.models.yolox.nn import LibreYOLOXModel
from torch import nn

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.candidates import Candidates, clip, every_class
from enxerto.vision.torch.detection.detector import Detector, Target
from enxerto.vision.torch.detection.suppression import MAX_CANDIDATES
from enxerto.vision.torch.detection.yolo_parts import cells, fill_but_head, padded
from enxerto.vision.torch.learner import Stages
from enxerto.vision.torch.weights import LoadedWeights

_STRIDES = (8, 16, 32)
_SCORE_FLOOR = 0.01


@dataclass(frozen=True, slots=True)
class Grids:
    """One (N, channels, rows, columns) tensor for each stride, and the input they answer for."""

    maps: list[torch.Tensor]
    images: torch.Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of the maps."""
        return [(one.shape[2], one.shape[3]) for one in self.maps]

    def flat(self) -> torch.Tensor:
        """(N, A, channels)."""
        return torch.cat([one.flatten(2) for one in self.maps], dim=2).transpose(1, 2)


class YOLOXDetector(Detector):
    """YOLOX (Ge et al. 2021, arXiv:2107.08430)."""

    iou_threshold = 0.65

    def __init__(self, network: LibreYOLOXModel, preprocess: PreprocessSpec) -> None:
        super().__init__(preprocess)
        self.network = network

    @property
    def stages(self) -> Stages:
        """The parts of CSPDarknet."""
        body = self.network.backbone.backbone
        return [(name, getattr(body, name)) for name in ("stem", "dark2", "dark3", "dark4", "dark5")]

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Neck and predictors."""
        neck = self.network.backbone
        parts = [part for name, part in neck.named_children() if name != "backbone"]
        return [*parts, self.network.head]

    def raw(self, images: torch.Tensor) -> Grids:
        """(N, 3, H, W) images in [0, 1] to offsets, objectness and class logits."""
        # Its weights were trained on blue, green, red.
        standard = self.standardised(images).flip(1)
        head = self.network.head
        maps = []
        for index, features in enumerate(self.network.backbone(standard)):
            stem = head.stems[index](features)
            of_class, of_box = head.cls_convs[index](stem), head.reg_convs[index](stem)
            parts = (head.reg_preds[index](of_box), head.obj_preds[index](of_box), head.cls_preds[index](of_class))
            maps.append(torch.cat(parts, dim=1).float())
        return Grids(maps, images)

    def loss_of(self, raw: Grids, targets: Sequence[Target]) -> torch.Tensor:
        """SimOTA assignment, IoU loss and cross entropies."""
        head = self.network.head
        outputs, x_shifts, y_shifts, strides = [], [], [], []
        for index, (grid, stride) in enumerate(zip(raw.maps, _STRIDES, strict=True)):
            decoded, shifts = head.get_output_and_grid(grid, index, stride, grid.type())
            outputs.append(decoded)
            x_shifts.append(shifts[:, :, 0])
            y_shifts.append(shifts[:, :, 1])
            strides.append(torch.full((1, shifts.shape[1]), float(stride), device=grid.device))
        labels, boxes = padded(targets)
        middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        # The loss counts the rows whose sum is positive: those without an object are zeros.
        rows = torch.cat((labels.clamp(min=0).unsqueeze(2).to(boxes.dtype), middle, size), dim=2)
        losses = head.get_losses(
            raw.images, x_shifts, y_shifts, strides, rows, torch.cat(outputs, dim=1), [], dtype=boxes.dtype
        )
        return cast(torch.Tensor, losses["total_loss"])

    def candidates_of(self, raw: Grids) -> Candidates:
        """Every cell for every class."""
        flat = raw.flat()
        centres, strides = cells(raw.sizes, _STRIDES, flat)
        # This family counts from a cell's corner.
        middle = flat[..., :2] * strides + centres - strides / 2
        half = flat[..., 2:4].exp() * strides / 2
        boxes = clip(torch.cat((middle - half, middle + half), dim=2), *raw.size)
        scores = flat[..., 4:5].sigmoid() * flat[..., 5:].sigmoid()
        return every_class(boxes, scores, _SCORE_FLOOR, MAX_CANDIDATES)


class YOLO9Detector(Detector):
    """YOLOv9 (Wang et al. 2024, arXiv:2402.13616)."""

    iou_threshold = 0.65

    def __init__(self, network: LibreYOLO9Model, preprocess: PreprocessSpec) -> None:
        super().__init__(preprocess)
        self.network = network

    @property
    def stages(self) -> Stages:
        """The backbone's layers, from one halving of the map to the next."""
        body = self.network.backbone
        parts = {
            "p1": [body.conv0],
            "p2": [body.conv1, body.elan1],
            "p3": [body.down2, body.elan2],
            "p4": [body.down3, body.elan3],
            "p5": [body.down4, body.elan4, body.spp],
        }
        return [(name, nn.Sequential(*layers)) for name, layers in parts.items()]

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Neck and predictors."""
        return [self.network.neck, self.network.head]

    def raw(self, images: torch.Tensor) -> Grids:
        """(N, 3, H, W) images in [0, 1] to distributions of distances, and class logits."""
        head = self.network.head
        features = self.network.neck(*self.network.backbone(self.standardised(images)))
        towers = zip(features, head.cv2, head.cv3, strict=True)
        return Grids([torch.cat((box(one), kind(one)), dim=1).float() for one, box, kind in towers], images)

    def loss_of(self, raw: Grids, targets: Sequence[Target]) -> torch.Tensor:
        """The task-aligned loss."""
        height, width = raw.size
        labels, boxes = padded(targets)
        relative = boxes / boxes.new_tensor([width, height, width, height])
        criterion: Any = self.network.head._get_loss_fn(raw.maps[0].device)
        # Workers may validate different numbers of batches: none may wait for another inside of a loss.
        criterion.distributed_normalize = False
        criterion.update_anchors([width, height])
        losses = criterion(raw.maps, torch.cat((labels.unsqueeze(2).to(boxes.dtype), relative), dim=2))
        return cast(torch.Tensor, losses["total_loss"])

    def candidates_of(self, raw: Grids) -> Candidates:
        """Every cell for every class."""
        head = self.network.head
        flat = raw.flat()
        centres, strides = cells(raw.sizes, _STRIDES, flat)
        distances = head.dfl(flat[..., : 4 * head.reg_max].transpose(1, 2)).transpose(1, 2) * strides
        boxes = clip(torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=2), *raw.size)
        return every_class(boxes, flat[..., 4 * head.reg_max :].sigmoid(), _SCORE_FLOOR, MAX_CANDIDATES)


_SIZES: Final = {"nano": "n", "tiny": "t"}


def build_libre(name: str, loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """A network by family and size, such as `yolox_s` or `yolov9_t`; `loaded` may be of other classes.

    Raises:
        WeightsCorruptError: the weights are of another network.
    """
    family, size = name.split("_")
    size = _SIZES.get(size, size)
    is_x = family == "yolox"
    network: Any = LibreYOLOXModel(size, nb_classes=classes) if is_x else LibreYOLO9Model(size, nb_classes=classes)
    if is_x:
        network.init_weights()
    if loaded is not None:
        fill_but_head(network, loaded, f"libreyolo/{name}", head="head.")
    return YOLOXDetector(network, preprocess) if is_x else YOLO9Detector(network, preprocess)
