"""What every family of detectors is to training, validation and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.candidates import Candidates
from enxerto.vision.torch.detection.suppression import TRANSLATIONS, select
from enxerto.vision.torch.learner import Stages


class Target(TypedDict):
    """The objects of one image.

    Attributes:
        boxes: (n, 4), float32, x_min, y_min, x_max, y_max in input pixels, of some area.
        labels: (n,), int64, indices of class names.
    """

    boxes: torch.Tensor
    labels: torch.Tensor


class Detector(nn.Module):
    """(N, 3, H, W) images in [0, 1] to a loss while it learns, and to candidates when it answers.

    Whether modules are in training mode decides about batch norm and dropout alone, so that a validation loss is
    computed like a training loss.

    Attributes:
        iou_threshold: of the suppression within a class.
    """

    mean: torch.Tensor
    std: torch.Tensor
    iou_threshold: float = 0.5

    def __init__(self, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    @property
    def stages(self) -> Stages:
        """The pretrained backbone's stages from input to output."""
        raise NotImplementedError

    @property
    def heads(self) -> Sequence[nn.Module]:
        """Everything else that learns: feature pyramid and predictors."""
        raise NotImplementedError

    def raw(self, images: torch.Tensor) -> Any:
        """What loss and candidates are made of. `images`: (N, 3, H, W), float32, in [0, 1]."""
        raise NotImplementedError

    def loss_of(self, raw: Any, targets: Sequence[Target]) -> torch.Tensor:
        """Scalar: mean loss of the batch."""
        raise NotImplementedError

    def candidates_of(self, raw: Any) -> Candidates:
        """Dense boxes of the batch, clipped to the input. Traces for export, whatever the number of images."""
        raise NotImplementedError

    def fix_input(self, height: int, width: int) -> None:
        """Prepare for inputs of one size only: what depends on the size becomes a constant. Before export."""

    def standardised(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the pretrained weights expect them."""
        return (images - self.mean) / self.std

    def forward(self, images: torch.Tensor, targets: Sequence[Target]) -> torch.Tensor:
        """Scalar: mean loss of the batch."""
        return self.loss_of(self.raw(images), targets)


class ServedDetector(nn.Module):
    """What is exported: (N, 3, H, W) images in [0, 1] to boxes, scores, classes and accepted, as the contract says."""

    thresholds: torch.Tensor

    def __init__(self, detector: Detector, thresholds: torch.Tensor, height: int, width: int) -> None:
        super().__init__()
        self.detector = detector
        self.largest = float(max(height, width))
        self.register_buffer("thresholds", thresholds.float())
        detector.eval().fix_input(height, width)

    @property
    def translations(self) -> Mapping[Any, Callable[..., Any]]:
        """For `custom_translation_table` of `torch.onnx.export`."""
        return TRANSLATIONS

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, 100, 4) boxes, (N, 100) scores, (N, 100) int64 classes, (N, 100) bool whether accepted."""
        candidates = self.detector.candidates_of(self.detector.raw(images))
        boxes, scores, classes = select(candidates, self.detector.iou_threshold, self.largest)
        accepted = (scores >= self.thresholds[classes.clamp(min=0)]) & (classes >= 0)
        return boxes, scores, classes, accepted
