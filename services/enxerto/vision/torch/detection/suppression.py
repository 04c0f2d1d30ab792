"""Non-maximum suppression of a whole batch, as one operator of torch and one of ONNX with the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import onnx_ir
import torch
from onnxscript import opset20
from torchvision.ops import nms

from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.torch.detection.candidates import Candidates

MAX_CANDIDATES: Final = 1000
"""Of an image that are compared with each other: the most certain ones. YOLO and torchvision take 1000 to 30000."""


# The opset's stubs take values only, where a translation passes the nodes of the graph.
_OP: Final[Any] = opset20


@torch.library.custom_op("enxerto::suppress", mutates_args=())
def suppress(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy suppression within each image: (N, M) bool, whether a box stays.

    Args:
        boxes: (N, M, 4), float32, x_min, y_min, x_max, y_max.
        scores: (N, M), float32; boxes with score 0 are no boxes and never stay.
        iou_threshold: a box goes when it overlaps a better one by more.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for row, (some, certain) in enumerate(zip(boxes, scores, strict=True)):
        real = torch.where(certain > 0)[0]
        kept[row, real[nms(some[real], certain[real], iou_threshold)]] = True
    return kept


@suppress.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    del boxes, iou_threshold
    return torch.empty_like(scores, dtype=torch.bool)


def _suppress_in_onnx(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """The operator's translation: NonMaxSuppression of one class, whose (image, class, box) rows become a mask."""
    most = _OP.Constant(value_ints=[boxes.shape[1]])
    picked = _OP.NonMaxSuppression(
        boxes,
        _OP.Unsqueeze(scores, _OP.Constant(value_ints=[1])),
        most,
        _OP.Constant(value_float=iou_threshold),
        _OP.Constant(value_float=0.0),
    )
    rows = _OP.Gather(picked, _OP.Constant(value_ints=[0, 2]), axis=1)
    nothing = _OP.ConstantOfShape(_OP.Shape(scores), value=onnx_ir.tensor([0], dtype=onnx_ir.DataType.INT64))
    ones = _OP.Expand(_OP.Constant(value_int=1), _OP.Shape(rows, start=0, end=1))
    return _OP.Cast(_OP.ScatterND(nothing, rows, ones), to=onnx_ir.DataType.BOOL.value)


TRANSLATIONS: Final[Mapping[Any, Callable[..., Any]]] = {torch.ops.enxerto.suppress.default: _suppress_in_onnx}
"""What `torch.onnx.export(custom_translation_table=...)` needs for graphs with `suppress` in them."""


def suppress_by_class(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, iou_threshold: float, largest: float
) -> torch.Tensor:
    """As `suppress`, but only boxes of the same class compete: each class's are moved to a place of its own.

    Args:
        boxes: (N, M, 4).
        scores: (N, M).
        classes: (N, M), int64.
        iou_threshold: as for `suppress`.
        largest: no coordinate is larger, pixels.
    """
    kept: torch.Tensor = suppress(
        boxes + (classes * (largest + 1.0)).unsqueeze(2).to(boxes.dtype), scores, iou_threshold
    )
    return kept


def select(
    candidates: Candidates, iou_threshold: float, largest: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best detections of each image: (N, 100, 4) boxes, (N, 100) scores, (N, 100) int64 classes.

    Highest score first; rows beyond those found have zeros and class -1.

    Args:
        candidates: of a batch.
        iou_threshold: of the suppression within each class.
        largest: side of the input, pixels.
    """
    scores, best = candidates.scores.topk(min(MAX_CANDIDATES, candidates.scores.shape[1]), dim=1)
    boxes = candidates.boxes.gather(1, best.unsqueeze(2).expand(-1, -1, 4))
    classes = candidates.classes.gather(1, best)
    kept = suppress_by_class(boxes, scores, classes, iou_threshold, largest)
    scores, best = (scores * kept).topk(min(MAX_DETECTIONS, scores.shape[1]), dim=1)
    found = scores > 0
    boxes = boxes.gather(1, best.unsqueeze(2).expand(-1, -1, 4)) * found.unsqueeze(2)
    classes = torch.where(found, classes.gather(1, best), -1)
    missing = MAX_DETECTIONS - scores.shape[1]
    if missing > 0:
        boxes = torch.nn.functional.pad(boxes, (0, 0, 0, missing))
        scores = torch.nn.functional.pad(scores, (0, missing))
        classes = torch.nn.functional.pad(classes, (0, missing), value=-1)
    return boxes, scores, classes
