"""Detectors."""

from __future__ import annotations

from typing import Final

from enxerto.vision.catalogue.classification import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PYTORCH,
    RESNET_STAGES,
)
from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights
from enxerto.vision.specs import PreprocessSpec, Resize, Task

_COCO_NOTE: Final = (
    "torchvision is BSD-3-Clause and publishes these weights with it; they were trained on COCO 2017, whose "
    "annotations are CC-BY-4.0 and whose pictures have terms of their own."
)
_ENCODER_NOTE: Final = "The architecture is torchvision's, BSD-3-Clause; pretrained weights are the encoder's alone."
_PYRAMID_STAGES: Final = ("p1", "p2", "p3", "p4", "p5")
_DARKNET_STAGES: Final = ("stem", "dark2", "dark3", "dark4", "dark5")
_ZERO: Final = (0.0, 0.0, 0.0)
_ONE: Final = (1.0, 1.0, 1.0)
_BYTES: Final = (1 / 255, 1 / 255, 1 / 255)


def _letterbox(
    side: int, mean: tuple[float, float, float] = IMAGENET_MEAN, std: tuple[float, float, float] = IMAGENET_STD
) -> PreprocessSpec:
    return PreprocessSpec(side, side, 1.0, "bilinear", mean, std, Resize.LETTERBOX)


def _on_encoder(name: str, title: str, side: int) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=f"{title} on any backbone",
        task=Task.DETECTION,
        library=f"torchvision/{name}",
        licence="BSD-3-Clause",
        licence_note=_ENCODER_NOTE,
        parameters=0,
        feature_dim=0,
        stages=(),
        preprocess=_letterbox(side),
        packaged=None,
        download=None,
        takes_encoder=True,
    )


def _coco(
    name: str, title: str, file: str, *, parameters: int, stages: tuple[str, ...], preprocess: PreprocessSpec
) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=title,
        task=Task.DETECTION,
        library=f"torchvision/{name}",
        licence="BSD-3-Clause",
        licence_note=_COCO_NOTE,
        parameters=parameters,
        feature_dim=0,
        stages=stages,
        preprocess=preprocess,
        packaged=None,
        download=DownloadableWeights(PYTORCH + file),
        whole=True,
    )


def _yolo(
    name: str, title: str, *, parameters: int, library: str, licence: str, note: str, preprocess: PreprocessSpec
) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=title,
        task=Task.DETECTION,
        library=f"{library}/{name}",
        licence=licence,
        licence_note=note,
        parameters=parameters,
        feature_dim=0,
        stages=_DARKNET_STAGES if name.startswith("yolox") else _PYRAMID_STAGES,
        preprocess=preprocess,
        packaged=None,
        # Published as pickles of whole Python objects, which are not read here.
        download=None,
        required_extra=library,
        whole=True,
    )


def _ultralytics(name: str, title: str, parameters: int) -> BaseModelFacts:
    note = (
        "ultralytics publishes code and weights under AGPL-3.0: who offers a service with it, or with what was trained "
        "from it, must offer its source. Its files are pickles that run code, so that its weights have to be imported "
        "as safetensors."
    )
    preprocess = _letterbox(640, _ZERO, _ONE)
    return _yolo(
        name,
        title,
        parameters=parameters,
        library="ultralytics",
        licence="AGPL-3.0-only",
        note=note,
        preprocess=preprocess,
    )


def _libreyolo(name: str, title: str, parameters: int, preprocess: PreprocessSpec) -> BaseModelFacts:
    note = (
        "libreyolo's code is MIT; published weights have their authors' terms (YOLOX: Apache-2.0, YOLOv9: MIT port). "
        "They have to be imported as safetensors."
    )
    return _yolo(
        name, title, parameters=parameters, library="libreyolo", licence="MIT", note=note, preprocess=preprocess
    )


DETECTION: Final = (
    _on_encoder("fasterrcnn", "Faster R-CNN with FPN", 512),
    _on_encoder("retinanet", "RetinaNet", 512),
    _on_encoder("ssd", "SSD", 320),
    _on_encoder("ssdlite", "SSDLite", 320),
    _coco(
        "fasterrcnn_resnet50_fpn",
        "Faster R-CNN ResNet-50 FPN",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        parameters=41_755_286,
        stages=RESNET_STAGES,
        preprocess=_letterbox(640),
    ),
    _coco(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "Faster R-CNN MobileNetV3-Large 320 FPN",
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
        parameters=19_386_354,
        stages=("c1", "c2", "c3", "c4", "c5"),
        preprocess=_letterbox(320),
    ),
    _coco(
        "retinanet_resnet50_fpn",
        "RetinaNet ResNet-50 FPN",
        "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        parameters=34_014_999,
        stages=RESNET_STAGES,
        preprocess=_letterbox(640),
    ),
    _coco(
        "ssd300_vgg16",
        "SSD300 VGG-16",
        "ssd300_vgg16_coco-b556d3b4.pth",
        parameters=35_641_826,
        stages=("conv1", "conv2", "conv3", "conv4", "conv5_fc"),
        # Its VGG was trained on bytes less their mean.
        preprocess=_letterbox(300, (0.48235, 0.45882, 0.40784), _BYTES),
    ),
    _coco(
        "ssdlite320_mobilenet_v3_large",
        "SSDLite320 MobileNetV3-Large",
        "ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        parameters=3_440_060,
        stages=("features0", "features1"),
        preprocess=_letterbox(320, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ),
    _ultralytics("yolov8n", "YOLOv8n", 3_157_200),
    _ultralytics("yolov8s", "YOLOv8s", 11_166_560),
    _ultralytics("yolov8m", "YOLOv8m", 25_902_640),
    _ultralytics("yolo11n", "YOLO11n", 2_624_080),
    _ultralytics("yolo11s", "YOLO11s", 9_458_752),
    # YOLOX is trained on bytes as they are (Ge et al. 2021, arXiv:2107.08430).
    _libreyolo("yolox_nano", "YOLOX-Nano", 912_159, _letterbox(416, _ZERO, _BYTES)),
    _libreyolo("yolox_tiny", "YOLOX-Tiny", 5_055_855, _letterbox(416, _ZERO, _BYTES)),
    _libreyolo("yolox_s", "YOLOX-S", 8_968_255, _letterbox(640, _ZERO, _BYTES)),
    _libreyolo("yolov9_t", "YOLOv9-T", 2_036_544, _letterbox(640, _ZERO, _ONE)),
    _libreyolo("yolov9_s", "YOLOv9-S", 7_226_192, _letterbox(640, _ZERO, _ONE)),
)
"""Detectors; sides suit 10 GB of GPU memory with the default batch, and any other multiple of 32 may be asked for."""
