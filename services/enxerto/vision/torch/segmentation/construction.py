"""The network that a run asks for, with its pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torchvision
from torch import nn

from enxerto.kernel.errors import Violations
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import DEFAULT_ENCODER, build_backbone, preprocess_of
from enxerto.vision.torch.segmentation.decoders import build_decoder
from enxerto.vision.torch.segmentation.network import EncoderDecoder, SegmentationNetwork, WholeNetwork
from enxerto.vision.torch.weights import LoadedWeights, WeightsCorruptError, WeightsSources, load_weights

_COCO_CLASSES: Final = 21
_WITHOUT_AUXILIARY: Final = ("lraspp",)


@dataclass(frozen=True, slots=True)
class BuiltSegmenter:
    """A network on the CPU.

    Attributes:
        network: with a new decoder, or new last layers.
        preprocess: from a picture to its input.
        weights: that it was filled with; None without.
    """

    network: SegmentationNetwork
    preprocess: PreprocessSpec
    weights: LoadedWeights | None


def build_segmenter(spec: FinetuneSpec, facts: BaseModelFacts, classes: int, sources: WeightsSources) -> BuiltSegmenter:
    """Build what the spec names; what is new is drawn with the seed.

    Raises:
        InvalidArgumentError: there is no such family, the encoder has no pyramid, or fewer stages than are to learn.
        BaseModelNotFoundError: the encoder is not in the catalogue.
        WeightsUnavailableError: pretrained weights are asked for and no source has them.
    """
    preprocess = preprocess_of(facts, spec)
    network: SegmentationNetwork
    if facts.takes_encoder:
        encoder = spec.encoder or DEFAULT_ENCODER
        backbone, weights = build_backbone(encoder, spec.weights, sources, seed=spec.seed, image_size=preprocess.height)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            network = EncoderDecoder(backbone, build_decoder(facts.name, backbone, classes), preprocess)
    else:
        weights = load_weights(facts, sources) if spec.weights is Weights.PRETRAINED else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            network = WholeNetwork(_construct(facts, weights), classes, preprocess)
    _check_stages(spec, facts, network)
    return BuiltSegmenter(network.eval(), preprocess, weights)


def _construct(facts: BaseModelFacts, weights: LoadedWeights | None) -> nn.Module:
    name = facts.library.rsplit("/", 1)[-1]
    auxiliary = not name.startswith(_WITHOUT_AUXILIARY)
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=_COCO_CLASSES, aux_loss=auxiliary
    )
    if weights is not None:
        try:
            network.load_state_dict(dict(weights.tensors))
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise WeightsCorruptError(f"{weights.source}: does not fit {facts.library}: {first}") from error
    return network


def _check_stages(spec: FinetuneSpec, facts: BaseModelFacts, network: SegmentationNetwork) -> None:
    violations = Violations()
    count = len(network.stages)
    if spec.unfreezing.stages > count:
        violations.add("unfreezing.stages", f"{facts.name} has {count} stages here")
    violations.raise_if_any()
