"""Networks that label pixels."""

from __future__ import annotations

from typing import Final

from enxerto.vision.catalogue.classification import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MOBILENET_V3_LARGE_STAGES,
    PYTORCH,
    RESNET_STAGES,
)
from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights
from enxerto.vision.specs import PreprocessSpec, Resize, Task

_COCO_NOTE: Final = (
    "torchvision is BSD-3-Clause and publishes these weights with it; they were trained on those pictures of COCO 2017 "
    "that show Pascal VOC's classes. The pictures have terms of their own."
)


def _stretched(side: int) -> PreprocessSpec:
    return PreprocessSpec(side, side, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD, Resize.STRETCH)


def _on_encoder(name: str, title: str, library: str, licence: str, side: int = 256) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=f"{title} on any backbone",
        task=Task.SEGMENTATION,
        library=library,
        licence=licence,
        licence_note=f"The architecture is {library.partition('/')[0]}'s; pretrained weights are the encoder's alone.",
        parameters=0,
        feature_dim=0,
        stages=(),
        preprocess=_stretched(side),
        packaged=None,
        download=None,
        takes_encoder=True,
    )


def _coco(name: str, title: str, file: str, parameters: int, stages: tuple[str, ...]) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=title,
        task=Task.SEGMENTATION,
        library=f"torchvision/{name}",
        licence="BSD-3-Clause",
        licence_note=_COCO_NOTE,
        parameters=parameters,
        feature_dim=0,
        # Of the classifier, only the last layers are replaced.
        stages=(*stages, "classifier"),
        preprocess=_stretched(512),
        packaged=None,
        download=DownloadableWeights(PYTORCH + file),
        whole=True,
    )


SEGMENTATION: Final = (
    _on_encoder("unet", "U-Net", "segmentation-models-pytorch/Unet", "MIT"),
    _on_encoder("deeplabv3plus", "DeepLabV3+", "segmentation-models-pytorch/DeepLabV3Plus", "MIT"),
    _on_encoder("deeplabv3", "DeepLabV3", "torchvision/deeplabv3", "BSD-3-Clause"),
    _on_encoder("fcn", "FCN", "torchvision/fcn", "BSD-3-Clause"),
    _on_encoder("lraspp", "LR-ASPP", "torchvision/lraspp", "BSD-3-Clause"),
    _coco(
        "deeplabv3_resnet50",
        "DeepLabV3 ResNet-50",
        "deeplabv3_resnet50_coco-cd0a2569.pth",
        42_004_074,
        RESNET_STAGES,
    ),
    _coco("fcn_resnet50", "FCN ResNet-50", "fcn_resnet50_coco-1167a1af.pth", 35_322_218, RESNET_STAGES),
    _coco(
        "lraspp_mobilenet_v3_large",
        "LR-ASPP MobileNetV3-Large",
        "lraspp_mobilenet_v3_large-d234d4ea.pth",
        3_221_538,
        MOBILENET_V3_LARGE_STAGES,
    ),
)
"""Networks of semantic segmentation."""
