"""torchvision's detectors as they were trained on COCO, with new predictors for the new classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.models.detection.ssd import SSDClassificationHead
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.detection.detector import Detector
from enxerto.vision.torch.detection.one_stage import RetinaNetDetector, SSDDetector
from enxerto.vision.torch.detection.two_stage import TwoStage
from enxerto.vision.torch.learner import Stages
from enxerto.vision.torch.weights import LoadedWeights, WeightsCorruptError

_BRANCH_SCALE: Final = 0.2
_NOISE: Final = (4, 3, 38, 38)
_GRAIN: Final = 8


def build_fasterrcnn_resnet50_fpn(loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """Faster R-CNN, ResNet-50 with a feature pyramid."""
    network = _construct("fasterrcnn_resnet50_fpn", loaded, preprocess)
    heads = network.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, classes + 1)
    return TwoStage(network, _resnet(network), [network.backbone.fpn, network.rpn, heads], preprocess)


def build_fasterrcnn_mobilenet(loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """Faster R-CNN, MobileNetV3-Large with a feature pyramid, for small inputs."""
    network = _construct("fasterrcnn_mobilenet_v3_large_320_fpn", loaded, preprocess)
    heads = network.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, classes + 1)
    stages = _mobilenet(list(network.backbone.body.values()))
    return TwoStage(network, stages, [network.backbone.fpn, network.rpn, heads], preprocess)


def build_retinanet_resnet50_fpn(loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """RetinaNet, ResNet-50 with a feature pyramid."""
    network = _construct("retinanet_resnet50_fpn", loaded, preprocess)
    old = network.head.classification_head
    new = RetinaNetClassificationHead(network.backbone.out_channels, old.num_anchors, classes)
    # The tower before the last layer knows how objects look, whatever their class.
    new.conv.load_state_dict(old.conv.state_dict())
    network.head.classification_head = new
    return RetinaNetDetector(network, _resnet(network), [network.backbone.fpn, network.head], preprocess)


def build_ssd300_vgg16(loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """SSD300, VGG-16."""
    network = _construct("ssd300_vgg16", loaded, preprocess)
    channels = [layer.in_channels for layer in network.head.classification_head.module_list]
    counts = network.anchor_generator.num_anchors_per_location()
    network.head.classification_head = SSDClassificationHead(channels, counts, classes + 1)
    body = network.backbone
    stages = _vgg(body)
    return SSDDetector(network, stages, [body.extra[1:], network.head], preprocess)


def build_ssdlite320(loaded: LoadedWeights | None, classes: int, preprocess: PreprocessSpec) -> Detector:
    """SSDLite320, MobileNetV3-Large."""
    network = _construct("ssdlite320_mobilenet_v3_large", loaded, preprocess)
    channels = [block[0][0].in_channels for block in network.head.classification_head.module_list]
    counts = network.anchor_generator.num_anchors_per_location()
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    network.head.classification_head = SSDLiteClassificationHead(channels, counts, classes + 1, norm)
    body = network.backbone
    stages = [(f"features{index}", stage) for index, stage in enumerate(body.features)]
    return SSDDetector(network, stages, [body.extra, network.head], preprocess)


def _construct(name: str, loaded: LoadedWeights | None, preprocess: PreprocessSpec) -> Any:
    """The library's network for COCO's classes; random without weights."""
    network: Any = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    if loaded is None:
        _near_identity(network)
        _normalise(network.backbone, preprocess)
        return network
    try:
        # By the library's own loading, which knows how the names of its tensors changed.
        misfits = network.load_state_dict(dict(loaded.tensors), strict=False)
    except RuntimeError as error:
        raise WeightsCorruptError(f"{loaded.source}: does not fit torchvision/{name}: {error}") from error
    # Files of networks with frozen statistics do not count batches, and the networks with them do not need it.
    wrong = [key for key in misfits.missing_keys if not key.endswith("num_batches_tracked")] + misfits.unexpected_keys
    if wrong:
        text = f"{loaded.source}: does not fit torchvision/{name}; {len(wrong)} tensors differ, such as {wrong[0]}"
        raise WeightsCorruptError(text)
    if name.endswith("resnet50_fpn"):
        _without_epsilon(network)
    return network


def _near_identity(network: nn.Module) -> None:
    """Let residual branches of a random network begin small (Goyal et al. 2017, arXiv:1706.02677, section 5.1).

    Their sum doubles the variance at every block, so that ResNet-50 makes a difference of 1e-3 out of rounding and its
    heads learn nothing. Not 0 as there: a branch behind frozen statistics could never leave it.
    """
    for block in network.modules():
        last = None
        if isinstance(block, Bottleneck):
            last = block.bn3
        elif isinstance(block, InvertedResidual) and block.use_res_connect:
            last = block.block[-1][1]
        if last is not None:
            nn.init.constant_(last.weight, _BRANCH_SCALE)


def _normalise(backbone: nn.Module, preprocess: PreprocessSpec) -> None:
    """Let every layer of a random backbone answer noise with mean 0 and variance 1 (Mishkin and Matas 2016,
    arXiv:1511.06422): batch norms by their statistics, which are frozen later, VGG's convolutions by their weights.

    As torchvision leaves them, depthwise and first convolutions have so small weights that all pictures, and all places
    of a picture, are alike after some of them: rounding decides which boxes are the best. The noise is coarse, since
    neighbouring pixels of pictures are alike.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    plain = [] if norms else [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    rates = [norm.momentum for norm in norms]
    for norm in norms:
        # The mean over all that was seen, which is one batch.
        norm.momentum = None
    hooks = [layer.register_forward_hook(_standardise) for layer in plain]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    noise = functional.interpolate(torch.rand(_NOISE), scale_factor=_GRAIN, mode="bilinear")
    with torch.no_grad():
        backbone.train()((noise - mean) / std)
    for hook in hooks:
        hook.remove()
    for norm, rate in zip(norms, rates, strict=True):
        norm.momentum = rate


def _standardise(layer: nn.Conv2d, _given: object, answer: torch.Tensor) -> torch.Tensor:
    """Scale a layer to the (N, C, H, W) answer that is returned."""
    assert layer.bias is not None
    mean = answer.mean(dim=(0, 2, 3))
    centred = answer - mean.view(-1, 1, 1)
    scale = centred.std()
    layer.weight.div_(scale)
    layer.bias.sub_(mean).div_(scale)
    return centred / scale


def _without_epsilon(network: nn.Module) -> None:
    # These weights were trained with statistics frozen and no epsilon.
    overwrite_eps(network, 0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0


def _resnet(network: Any) -> Stages:
    body = network.backbone.body
    stem = nn.Sequential(body.conv1, body.bn1)
    return [("stem", stem), *((name, body[name]) for name in ("layer1", "layer2", "layer3", "layer4"))]


def _mobilenet(layers: Sequence[nn.Module]) -> Stages:
    """The layers from one halving of the map to the next."""
    edges = [0, *(index for index, layer in enumerate(layers) if getattr(layer, "_is_cn", False)), len(layers)]
    pairs = itertools.pairwise(edges)
    return [(f"c{number}", nn.Sequential(*layers[a:b])) for number, (a, b) in enumerate(pairs, start=1)]


def _vgg(body: Any) -> Stages:
    blocks: list[list[nn.Module]] = [[]]
    for layer in body.features:
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
        blocks[-1].append(layer)
    named = [(f"conv{index}", cast(nn.Module, nn.Sequential(*block))) for index, block in enumerate(blocks, start=1)]
    return [*named, ("conv5_fc", body.extra[0])]


BUILDERS: Final[Mapping[str, Callable[[LoadedWeights | None, int, PreprocessSpec], Detector]]] = {
    "fasterrcnn_resnet50_fpn": build_fasterrcnn_resnet50_fpn,
    "fasterrcnn_mobilenet_v3_large_320_fpn": build_fasterrcnn_mobilenet,
    "retinanet_resnet50_fpn": build_retinanet_resnet50_fpn,
    "ssd300_vgg16": build_ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": build_ssdlite320,
}
