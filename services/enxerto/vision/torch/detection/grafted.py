"""Detectors around any pretrained backbone: everything but the backbone is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models.backbone import StagedBackbone
from enxerto.vision.torch.detection.detector import Detector
from enxerto.vision.torch.detection.one_stage import RetinaNetDetector, SSDDetector
from enxerto.vision.torch.detection.pyramids import Encoder, EncoderPyramid, EncoderWithExtras
from enxerto.vision.torch.detection.two_stage import TwoStage

_ASPECTS: Final = (0.5, 1.0, 2.0)
_LARGE_INPUT: Final = 600
"""From this side on, anchors have the size that the papers give them for inputs of 800 pixels; else half of it."""


def _anchor_scale(preprocess: PreprocessSpec) -> int:
    """Side of an anchor / stride of its map: objects shrink with the input, and so do anchors."""
    return 8 if preprocess.height >= _LARGE_INPUT else 4


def build_fasterrcnn(backbone: StagedBackbone, classes: int, preprocess: PreprocessSpec) -> Detector:
    """Faster R-CNN with a feature pyramid at strides 4 to 64."""
    encoder = Encoder(backbone, (4, 8, 16, 32))
    pyramid = EncoderPyramid(encoder, two_stage=True)
    sizes = tuple((stride * _anchor_scale(preprocess),) for stride in (4, 8, 16, 32, 64))
    narrow = pyramid.out_channels < 256
    network = FasterRCNN(
        pyramid,
        # On a fast backbone the papers' second network would take nine tenths of the time.
        box_head=TwoMLPHead(pyramid.out_channels * 7 * 7, 512 if narrow else 1024),
        box_predictor=FastRCNNPredictor(512 if narrow else 1024, classes + 1),
        box_batch_size_per_image=128 if narrow else 512,
        rpn_post_nms_top_n_train=1000,
        rpn_anchor_generator=AnchorGenerator(sizes, (_ASPECTS,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2),
    )
    pool: Any = network.roi_heads.box_roi_pool
    # Which map a region is taken from goes with the anchors: 224 pixels are one of stride 16 for large inputs only.
    pool.canonical_scale = 28 * _anchor_scale(preprocess)
    return TwoStage(network, encoder.stages, [pyramid.fpn, network.rpn, network.roi_heads], preprocess)


def build_retinanet(backbone: StagedBackbone, classes: int, preprocess: PreprocessSpec) -> Detector:
    """RetinaNet with a feature pyramid at strides 8 to 128."""
    encoder = Encoder(backbone, (8, 16, 32))
    pyramid = EncoderPyramid(encoder, two_stage=False)
    octaves = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    sides = [stride * _anchor_scale(preprocess) // 2 * 1.0 for stride in (8, 16, 32, 64, 128)]
    sizes = tuple(tuple(int(side * octave) for octave in octaves) for side in sides)
    network = RetinaNet(pyramid, classes, anchor_generator=AnchorGenerator(sizes, (_ASPECTS,) * len(sizes)))
    return RetinaNetDetector(network, encoder.stages, [pyramid.fpn, network.head], preprocess)


def _build_ssd(
    backbone: StagedBackbone,
    classes: int,
    preprocess: PreprocessSpec,
    *,
    strides: Sequence[int],
    widths: Sequence[int],
    separable: bool,
) -> Detector:
    encoder = Encoder(backbone, strides)
    extras = EncoderWithExtras(encoder, widths, separable=separable)
    levels = len(extras.channels)
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(levels)], min_ratio=0.1 if separable else 0.07, max_ratio=0.95)
    counts = anchors.num_anchors_per_location()
    head: nn.Module = (
        SSDLiteHead(extras.channels, counts, classes + 1, nn.BatchNorm2d)
        if separable
        else SSDHead(extras.channels, counts, classes + 1)
    )
    side = (preprocess.height, preprocess.width)
    network = SSD(extras, anchors, side, classes + 1, head=head, nms_thresh=0.55 if separable else 0.45)
    return SSDDetector(network, encoder.stages, [extras.extra, network.head], preprocess)


def build_ssd(backbone: StagedBackbone, classes: int, preprocess: PreprocessSpec) -> Detector:
    """SSD with six maps, from stride 8 on."""
    widths = (512, 256, 256)
    return _build_ssd(backbone, classes, preprocess, strides=(8, 16, 32), widths=widths, separable=False)


def build_ssdlite(backbone: StagedBackbone, classes: int, preprocess: PreprocessSpec) -> Detector:
    """SSDLite (Sandler et al. 2018, arXiv:1801.04381, section 6.2) with six maps, from stride 16 on."""
    widths = (512, 256, 256, 128)
    return _build_ssd(backbone, classes, preprocess, strides=(16, 32), widths=widths, separable=True)


BUILDERS: Final[Mapping[str, Callable[[StagedBackbone, int, PreprocessSpec], Detector]]] = {
    "fasterrcnn": build_fasterrcnn,
    "retinanet": build_retinanet,
    "ssd": build_ssd,
    "ssdlite": build_ssdlite,
}
