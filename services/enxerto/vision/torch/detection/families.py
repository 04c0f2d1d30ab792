"""Every family of detectors, built for new classes from a base model's facts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch

from enxerto.kernel.errors import FailedPreconditionError, InvalidArgumentError, PreconditionViolation, Violation
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import PreprocessSpec, Resize
from enxerto.vision.torch.base_models import DEFAULT_ENCODER, build_backbone, preprocess_of
from enxerto.vision.torch.detection import coco, grafted
from enxerto.vision.torch.detection.detector import Detector
from enxerto.vision.torch.weights import LoadedWeights, WeightsSources, load_weights

_SIDE_STEP: Final = 32
"""Sides that every family's maps divide evenly."""


class ExtraMissingError(FailedPreconditionError):
    """A base model needs packages that are not installed on the workers."""

    reason = "EXTRA_MISSING"

    def __init__(self, facts: BaseModelFacts, extra: str) -> None:
        text = f"{facts.name} needs the extra {extra!r} on the workers: pip install 'enxerto[{extra}]'"
        super().__init__(text, [PreconditionViolation("EXTRA", f"baseModels/{facts.name}", text)])


@dataclass(frozen=True, slots=True)
class BuiltDetector:
    """A detector on the CPU in eval mode, whose predictors are new.

    Attributes:
        detector: the network.
        preprocess: of its input.
        weights: that it was filled with; None for random ones.
    """

    detector: Detector
    preprocess: PreprocessSpec
    weights: LoadedWeights | None


def build_detector(spec: FinetuneSpec, facts: BaseModelFacts, classes: int, sources: WeightsSources) -> BuiltDetector:
    """The base model for `classes` classes; `spec.seed` decides what is random.

    Raises:
        InvalidArgumentError: the family does not take the encoder or the image size.
        ExtraMissingError: the family's packages are not installed.
        WeightsUnavailableError: no source has the pretrained weights.
        WeightsCorruptError: a weights file is damaged or of another network.
    """
    preprocess = _preprocess(spec, facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        if facts.takes_encoder:
            name = spec.encoder or DEFAULT_ENCODER
            side = preprocess.height
            backbone, loaded = build_backbone(name, spec.weights, sources, seed=spec.seed, image_size=side)
            detector: Detector = grafted.BUILDERS[facts.name](backbone, classes, preprocess)
        else:
            build = _builder(facts)
            loaded = load_weights(facts, sources) if spec.weights is Weights.PRETRAINED else None
            detector = build(loaded, classes, preprocess)
    return BuiltDetector(detector.requires_grad_(False).eval(), preprocess, loaded)


_LEAST_SIDES = {"ssd300_vgg16": 288}
"""Sides below which a network's last layers have nothing left to look at."""

_Build = Callable[[LoadedWeights | None, int, PreprocessSpec], Detector]


def _builder(facts: BaseModelFacts) -> _Build:
    package, name = facts.library.split("/", 1)
    if package == "torchvision":
        return coco.BUILDERS[name]
    if importlib.util.find_spec(package) is None:
        raise ExtraMissingError(facts, facts.required_extra or package)
    if package == "ultralytics":
        from enxerto.vision.torch.detection.ultralytics_yolo import build_ultralytics  # noqa: PLC0415 - an extra

        return lambda loaded, classes, preprocess: build_ultralytics(name, loaded, classes, preprocess)
    from enxerto.vision.torch.detection.libre_yolo import build_libre  # noqa: PLC0415 - an extra

    return lambda loaded, classes, preprocess: build_libre(name, loaded, classes, preprocess)


def _preprocess(spec: FinetuneSpec, facts: BaseModelFacts) -> PreprocessSpec:
    # SSD300 is made for its own side, which is no multiple.
    if spec.image_size % _SIDE_STEP and spec.image_size != facts.preprocess.height:
        raise InvalidArgumentError([Violation("image_size", f"must be a multiple of {_SIDE_STEP} for detection")])
    least = _LEAST_SIDES.get(facts.name, 0)
    if 0 < spec.image_size < least:
        raise InvalidArgumentError([Violation("image_size", f"must be at least {least} for {facts.name}")])
    return replace(preprocess_of(facts, spec), crop_fraction=1.0, resize=Resize.LETTERBOX)
