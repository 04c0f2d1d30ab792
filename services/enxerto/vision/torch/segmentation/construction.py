"""The network that a run asks for, with its pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
import torchvision
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation, Violations
from enxerto.vision.catalogue import BaseModelFacts, get_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import PreprocessSpec, Resize
from enxerto.vision.torch.base_models import build_backbone
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


def choose_preprocess(spec: FinetuneSpec, facts: BaseModelFacts) -> PreprocessSpec:
    """The whole picture, stretched to a square: of the encoder's mean and deviation, of the run's size."""
    pixels = get_facts(spec.encoder).preprocess if facts.takes_encoder else facts.preprocess
    side = spec.image_size or facts.preprocess.height
    return replace(pixels, height=side, width=side, crop_fraction=1.0, resize=Resize.STRETCH)


def build_segmenter(spec: FinetuneSpec, facts: BaseModelFacts, classes: int, sources: WeightsSources) -> BuiltSegmenter:
    """Build what the spec names; what is new is drawn with the seed.

    Raises:
        InvalidArgumentError: there is no such family, the encoder has no pyramid, or fewer stages than are to learn.
        BaseModelNotFoundError: the encoder is not in the catalogue.
        WeightsUnavailableError: pretrained weights are asked for and no source has them.
    """
    if facts.takes_encoder and not spec.encoder:
        raise InvalidArgumentError([Violation("encoder", f"{facts.name} needs one")])
    preprocess = choose_preprocess(spec, facts)
    network: SegmentationNetwork
    if facts.takes_encoder:
        backbone, weights = build_backbone(spec.encoder, spec.weights, sources, seed=spec.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            network = EncoderDecoder(backbone, build_decoder(facts.name, backbone, classes), preprocess)
    else:
        weights = load_weights(facts, sources) if spec.weights is Weights.PRETRAINED else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            network = WholeNetwork(_construct(facts, weights), classes, preprocess)
    _check_stages(spec, network)
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


def _check_stages(spec: FinetuneSpec, network: SegmentationNetwork) -> None:
    violations = Violations()
    count = len(network.stages)
    if spec.unfreezing.stages > count:
        violations.add("unfreezing.stages", f"{spec.encoder or spec.base_model} has {count} stages here")
    violations.raise_if_any()
