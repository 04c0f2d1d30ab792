"""What STYLE minimises, and the network that measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch

from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.images import UInt8Image
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import DEFAULT_ENCODER, build_backbone, preprocess_of
from enxerto.vision.torch.style.perception import LossNetwork, StyleLosses
from enxerto.vision.torch.style.pictures import to_tensor
from enxerto.vision.torch.weights import LoadedWeights, WeightsSources


class _Weights(NamedTuple):
    style: float
    variation: float


_GATYS_WEIGHTS: Final = _Weights(10.0, 30.0)
_FAST_WEIGHTS: Final = _Weights(3.0, 10.0)


@dataclass(frozen=True, slots=True)
class Objective:
    """A weighted sum of the losses against one style picture.

    Attributes:
        network: that sees pictures; frozen, on its device.
        style: Gram matrices of the style picture, (1, C, C) each.
        content_weight: of the content loss.
        style_weight: of the style loss.
        variation_weight: of the total variation.
    """

    network: LossNetwork
    style: tuple[torch.Tensor, ...]
    content_weight: float
    style_weight: float
    variation_weight: float

    def total(self, losses: StyleLosses) -> torch.Tensor:
        """What is minimised, a scalar."""
        return (
            self.content_weight * losses.content
            + self.style_weight * losses.style
            + self.variation_weight * losses.total_variation
        )

    def measure(self, pictures: torch.Tensor, contents: torch.Tensor) -> StyleLosses:
        """Compare (N, 3, H, W) pictures in [0, 1] with their contents, likewise."""
        with torch.no_grad():
            wanted = self.network.maps(contents)
        return self.network.losses(pictures, wanted, self.style)


def build_objective(spec: FinetuneSpec, network: LossNetwork, picture: UInt8Image, device: str) -> Objective:
    """For an (H, W, 3) style picture.

    The default weights are for every loss network: the losses are relative, so that content and style are near 1 when
    nothing of them is there. They differ by method. Tried with EfficientNet-Lite0 on photographs and looked at, Gatys,
    which starts from the content, at a style weight of 1 changes hardly more than colours and at 10 carries strokes
    over with every object still told apart. A network that starts from nothing loses the content at 10.
    """
    moved = network.to(device)
    with torch.no_grad():
        grams = moved.grams(moved.maps(to_tensor(picture).to(device)))
    usual, style = _GATYS_WEIGHTS if spec.paints_pictures else _FAST_WEIGHTS, spec.style
    return Objective(
        network=moved,
        style=tuple(grams),
        content_weight=style.content_weight,
        style_weight=usual.style if style.style_weight is None else style.style_weight,
        variation_weight=(usual.variation if style.total_variation_weight is None else style.total_variation_weight),
    )


def build_loss_network(
    spec: FinetuneSpec, facts: BaseModelFacts, sources: WeightsSources
) -> tuple[LossNetwork, LoadedWeights | None]:
    """The frozen network that the base model names: its encoder, or the VGG that its weights are of.

    Raises:
        InvalidArgumentError: the encoder has no pyramid.
        BaseModelNotFoundError: the encoder is not in the catalogue.
        WeightsUnavailableError: pretrained weights are asked for and no source has them.
    """
    backbone, weights = build_backbone(_encoder(spec, facts), spec.weights, sources, seed=spec.seed)
    return LossNetwork(backbone, preprocess_of(facts, spec)), weights


def served_preprocess(spec: FinetuneSpec, facts: BaseModelFacts) -> PreprocessSpec:
    """Of the transformer network, which maps [0, 1] to [-1, 1] by itself, whatever the loss network wants."""
    half = (0.5, 0.5, 0.5)
    return replace(preprocess_of(facts, spec), mean=half, std=half)


def loss_values(losses: StyleLosses, total: torch.Tensor, similarity: torch.Tensor) -> Mapping[str, float]:
    """The numbers of STYLE by name, the own metric first."""
    return {
        "loss": float(total),
        "content_loss": float(losses.content),
        "style_loss": float(losses.style),
        "total_variation_loss": float(losses.total_variation),
        "ssim": float(similarity),
    }


def _encoder(spec: FinetuneSpec, facts: BaseModelFacts) -> str:
    if facts.takes_encoder:
        return spec.encoder or DEFAULT_ENCODER
    return facts.weights_of
