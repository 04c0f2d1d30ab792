"""Base models as networks: constructors, stages and pretrained weights. Their facts are in `vision.catalogue`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import timm
import torch
import torchvision
from torch import nn

from enxerto.vision.catalogue import BaseModelFacts, get_facts, list_facts, register_facts
from enxerto.vision.finetuning import Weights
from enxerto.vision.torch.base_models.backbone import ChainBackbone, PyramidLevel, StagedBackbone
from enxerto.vision.torch.learner import Stages
from enxerto.vision.torch.weights import LoadedWeights, WeightsCorruptError, WeightsSources, load_weights

__all__ = [
    "BaseModel",
    "ChainBackbone",
    "PyramidLevel",
    "StagedBackbone",
    "build_backbone",
    "get_base_model",
    "list_base_models",
    "register_base_model",
]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """One base model.

    Attributes:
        facts: what everyone sees.
        construct: the library's network with its classifier and random weights, whose state dict the weights fit.
        split: its stages, and the pooling that makes a vector of the last one's output.
    """

    facts: BaseModelFacts
    construct: Callable[[], nn.Module]
    split: Callable[[nn.Module], tuple[Stages, nn.Module]]


_BASE_MODELS: Final[dict[str, BaseModel]] = {}


def register_base_model(model: BaseModel) -> None:
    """Add a base model, to the catalogue as well unless its facts are there.

    Raises:
        ValueError: the name is taken.
    """
    name = model.facts.name
    if name in _BASE_MODELS:
        raise ValueError(f"base model {name!r} is registered already")
    if model.facts not in list_facts():
        register_facts(model.facts)
    _BASE_MODELS[name] = model


def get_base_model(name: str) -> BaseModel:
    """One base model.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue.
    """
    return _BASE_MODELS[get_facts(name).name]


def list_base_models() -> tuple[BaseModel, ...]:
    """All of them, in the catalogue's order."""
    return tuple(_BASE_MODELS[facts.name] for facts in list_facts() if facts.name in _BASE_MODELS)


def build_backbone(
    name: str, weights: Weights, sources: WeightsSources, *, seed: int = 0
) -> tuple[StagedBackbone, LoadedWeights | None]:
    """A backbone on the CPU in eval mode, and the weights that it was filled with.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue.
        WeightsUnavailableError: pretrained weights are asked for and no source has them.
        WeightsCorruptError: a weights file is damaged or of another network.
    """
    model = get_base_model(name)
    # Before construction, so that no time is spent on a network that cannot be filled.
    loaded = load_weights(model.facts, sources) if weights is Weights.PRETRAINED else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model.construct()
    if loaded is not None:
        _fill(network, loaded, model.facts)
    stages, pool = model.split(network)
    return ChainBackbone(stages, pool, model.facts.feature_dim, name=name).eval(), loaded


def _fill(network: nn.Module, loaded: LoadedWeights, facts: BaseModelFacts) -> None:
    tensors: Mapping[str, torch.Tensor] = loaded.tensors
    expected = network.state_dict()
    by_order = facts.packaged is not None and facts.packaged.by_order
    if set(tensors) != set(expected) and by_order and len(tensors) == len(expected):
        tensors = dict(zip(expected, tensors.values(), strict=True))
    wrong = [name for name, tensor in expected.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if wrong:
        raise WeightsCorruptError(
            f"{loaded.source}: does not fit {facts.library}; {len(wrong)} tensors are missing or of another shape, "
            f"such as {wrong[0]}"
        )
    network.load_state_dict({name: tensors[name] for name in expected})


def _efficientnet_lite0(network: nn.Module) -> tuple[Stages, nn.Module]:
    parts = dict(network.named_children())
    blocks = [(f"block{index}", block) for index, block in enumerate(cast(nn.Sequential, parts["blocks"]))]
    stem = nn.Sequential(parts["conv_stem"], parts["bn1"])
    top = nn.Sequential(parts["conv_head"], parts["bn2"])
    return [("stem", stem), *blocks, ("top", top)], parts["global_pool"]


def _resnet(network: nn.Module) -> tuple[Stages, nn.Module]:
    parts = dict(network.named_children())
    stem = nn.Sequential(parts["conv1"], parts["bn1"], parts["relu"])
    # The pooling goes to the next stage, so that the pyramid has a level of stride 2.
    layer1 = nn.Sequential(parts["maxpool"], parts["layer1"])
    layers = [(name, parts[name]) for name in ("layer2", "layer3", "layer4")]
    return [("stem", stem), ("layer1", layer1), *layers], nn.Sequential(parts["avgpool"], nn.Flatten())


def _vgg16(network: nn.Module) -> tuple[Stages, nn.Module]:
    parts = dict(network.named_children())
    stages: list[tuple[str, nn.Module]] = []
    convolutions: list[nn.Module] = []
    for layer in cast(nn.Sequential, parts["features"]):
        convolutions.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append((f"conv{len(stages) + 1}", nn.Sequential(*convolutions)))
            convolutions = []
    classifier = list(cast(nn.Sequential, parts["classifier"]))
    fc6 = nn.Sequential(parts["avgpool"], nn.Flatten(), *classifier[:3])
    fc7 = nn.Sequential(*classifier[3:6])
    return [*stages, ("fc6", fc6), ("fc7", fc7)], nn.Identity()


def _efficientnet(network: nn.Module) -> tuple[Stages, nn.Module]:
    parts = dict(network.named_children())
    stem, *blocks, top = cast(nn.Sequential, parts["features"])
    named = [(f"block{index}", block) for index, block in enumerate(blocks, start=1)]
    return [("stem", stem), *named, ("top", top)], nn.Sequential(parts["avgpool"], nn.Flatten())


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


register_base_model(
    BaseModel(
        get_facts("efficientnet_lite0"),
        lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False),
        _efficientnet_lite0,
    )
)
register_base_model(BaseModel(get_facts("resnet18"), _torchvision("resnet18"), _resnet))
register_base_model(BaseModel(get_facts("resnet50"), _torchvision("resnet50"), _resnet))
register_base_model(BaseModel(get_facts("vgg16"), _torchvision("vgg16"), _vgg16))
register_base_model(BaseModel(get_facts("efficientnet_b0"), _torchvision("efficientnet_b0"), _efficientnet))
