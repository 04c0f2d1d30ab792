"""Ways to give a picture another picture's style."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enxerto.vision.catalogue.classification import CLASSIFICATION, IMAGENET_MEAN, IMAGENET_STD
from enxerto.vision.catalogue.facts import BaseModelFacts
from enxerto.vision.specs import PreprocessSpec, Resize, Task

_FIT: Final = PreprocessSpec(512, 512, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD, Resize.FIT)


def _on_encoder(name: str, title: str) -> BaseModelFacts:
    return BaseModelFacts(
        name=name,
        title=f"{title} with any backbone's features",
        task=Task.STYLE,
        library=f"enxerto/{name}",
        licence="Apache-2.0",
        licence_note="The method is this project's own code; pretrained weights are the encoder's alone.",
        parameters=0,
        feature_dim=0,
        stages=(),
        preprocess=_FIT,
        packaged=None,
        download=None,
        takes_encoder=True,
    )


def _on_vgg(name: str, title: str, vgg: str, convolutions: int) -> BaseModelFacts:
    network = next(facts for facts in CLASSIFICATION if facts.name == vgg)
    return replace(
        network,
        name=name,
        title=f"{title} with {network.title}",
        task=Task.STYLE,
        library=f"enxerto/{name}",
        parameters=convolutions,
        feature_dim=0,
        # None of it learns: its features are what pictures are compared by.
        stages=(),
        preprocess=_FIT,
        weights_of=vgg,
    )


STYLE: Final = (
    _on_encoder("gatys", "Gatys optimisation"),
    _on_vgg("gatys_vgg16", "Gatys optimisation", "vgg16", 14_714_688),
    _on_vgg("gatys_vgg19", "Gatys optimisation", "vgg19", 20_024_384),
    _on_encoder("fast_style", "Fast style transfer"),
    _on_vgg("fast_style_vgg16", "Fast style transfer", "vgg16", 14_714_688),
)
"""Gatys optimises each picture (arXiv:1508.06576); fast style transfer trains a network (arXiv:1603.08155)."""
