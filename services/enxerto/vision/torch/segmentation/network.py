"""Networks that give every pixel a class: a pretrained backbone with a new decoder, or torchvision's own."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import StagedBackbone
from enxerto.vision.torch.learner import Stages
from enxerto.vision.torch.segmentation.decoders import Decoder


class Logits(NamedTuple):
    """What a network says of each pixel.

    Attributes:
        main: (N, classes, H, W).
        auxiliary: likewise, of an earlier stage while training; None without such a head, and in eval mode.
    """

    main: torch.Tensor
    auxiliary: torch.Tensor | None


class SegmentationNetwork(nn.Module):
    """(N, 3, H, W) float images in [0, 1] to logits of the same size."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    @property
    def stages(self) -> Stages:
        """What is pretrained, from input to output."""
        raise NotImplementedError

    @property
    def heads(self) -> list[nn.Module]:
        """What is new."""
        raise NotImplementedError

    def standardised(self, images: torch.Tensor) -> torch.Tensor:
        """What the backbone takes."""
        return (images - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> Logits:
        """(N, 3, H, W) float images in [0, 1] to logits."""
        raise NotImplementedError


class EncoderDecoder(SegmentationNetwork):
    """Any backbone with a pyramid, and a new decoder."""

    def __init__(self, backbone: StagedBackbone, decoder: Decoder, preprocess: PreprocessSpec) -> None:
        super().__init__(preprocess)
        self.backbone = backbone
        self.decoder = decoder

    @property
    def stages(self) -> Stages:
        """The backbone's, up to the last that the pyramid needs."""
        return self.backbone.stages[: self.backbone.pyramid_info()[-1].stage + 1]

    @property
    def heads(self) -> list[nn.Module]:
        """The whole decoder."""
        return [self.decoder]

    def forward(self, images: torch.Tensor) -> Logits:
        """(N, 3, H, W) float images in [0, 1] to logits."""
        maps = self.backbone.pyramid(self.standardised(images))
        return Logits(_to_size(self.decoder(images, maps), images), None)


class WholeNetwork(SegmentationNetwork):
    """torchvision's DeepLabV3, FCN or LR-ASPP, of which only the last layers are new."""

    def __init__(self, network: nn.Module, classes: int, preprocess: PreprocessSpec) -> None:
        super().__init__(preprocess)
        self.network = network
        self._new = _replace_last(network, classes)

    @property
    def stages(self) -> Stages:
        """The backbone's layers in groups that end where the resolution does, and the pretrained classifier's."""
        return [*_backbone_stages(self._part("backbone")), ("classifier", self._part("classifier"))]

    @property
    def heads(self) -> list[nn.Module]:
        """The last layer of the classifier, or the last two."""
        return [self.network.get_submodule(name) for name in self._new]

    def forward(self, images: torch.Tensor) -> Logits:
        """(N, 3, H, W) float images in [0, 1] to logits."""
        maps = self._part("backbone")(self.standardised(images))
        classifier = self._part("classifier")
        main = classifier(maps.get("out", maps))
        auxiliary = getattr(self.network, "aux_classifier", None)
        if auxiliary is None or not self.training:
            return Logits(_to_size(main, images), None)
        return Logits(_to_size(main, images), _to_size(auxiliary(maps["aux"]), images))

    def _part(self, name: str) -> nn.Module:
        return self.network.get_submodule(name)


class ServedSegmenter(nn.Module):
    """What is exported: [0, 1] images to `classes` (N, H, W) uint8 and `confidence` (N,) float32.

    The confidence is the mean probability of the pixels' classes.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) float32 images to (classes, confidence)."""
        probabilities, classes = self.network(images).main.softmax(dim=1).max(dim=1)
        return classes.to(torch.uint8), probabilities.mean(dim=(1, 2))


def _to_size(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    if logits.shape[-2:] == images.shape[-2:]:
        return logits
    return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _replace_last(network: nn.Module, classes: int) -> list[str]:
    """Put new last convolutions, and return their names."""
    last = ["classifier.low_classifier", "classifier.high_classifier", "classifier.4", "aux_classifier.4"]
    names = [name for name, module in network.named_modules() if name in last and isinstance(module, nn.Conv2d)]
    for name in names:
        parent, _, child = name.rpartition(".")
        old = cast(nn.Conv2d, network.get_submodule(name))
        setattr(network.get_submodule(parent), child, nn.Conv2d(old.in_channels, classes, 1))
    return names


def _backbone_stages(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    children = list(backbone.named_children())
    if any(name == "layer1" for name, _ in children):
        stem = nn.ModuleList(module for name, module in children if not name.startswith("layer"))
        return [("stem", stem), *((name, module) for name, module in children if name.startswith("layer"))]
    last = len(children) - 1
    names = ["stem", *(f"block{index}" for index in range(1, last)), "top"]
    return [(name, module) for name, (_, module) in zip(names, children, strict=True)]
