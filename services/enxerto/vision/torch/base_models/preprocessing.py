"""How a run's pictures become its network's input."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enxerto.vision.catalogue import BaseModelFacts, get_facts
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.specs import PreprocessSpec

DEFAULT_ENCODER: Final = "efficientnet_lite0"
"""Whose ImageNet weights are installed."""


def preprocess_of(facts: BaseModelFacts, spec: FinetuneSpec) -> PreprocessSpec:
    """The base model's own preprocessing, with the encoder's mean and deviation and the size that the run asks for.

    `crop_fraction` and the way to resize stay the base model's.

    Raises:
        BaseModelNotFoundError: the encoder is not in the catalogue.
    """
    own = facts.preprocess
    if facts.takes_encoder:
        encoder = get_facts(spec.encoder or DEFAULT_ENCODER).preprocess
        own = replace(own, mean=encoder.mean, std=encoder.std)
    if spec.image_size:
        own = replace(own, height=spec.image_size, width=spec.image_size)
    return own
