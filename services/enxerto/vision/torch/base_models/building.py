"""Backbones by name, filled with their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import timm
import torch
import torchvision
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.catalogue import BaseModelFacts, get_facts, list_facts, register_facts
from enxerto.vision.catalogue.timm_names import PREFIX as TIMM_PREFIX
from enxerto.vision.finetuning import Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models import timm_models
from enxerto.vision.torch.base_models.backbone import ChainBackbone, StagedBackbone
from enxerto.vision.torch.base_models.families import SPLITS, Parts, split_efficientnet_lite0
from enxerto.vision.torch.weights import LoadedWeights, WeightsSources, fill, load_weights


@dataclass(frozen=True, slots=True)
class BaseModel:
    """One backbone.

    Attributes:
        facts: what everyone sees.
        construct: the library's network with its classifier and random weights, whose state dict the weights fit.
        split: its stages, and the pooling that makes a vector of the last one's output; None leaves that to timm.
    """

    facts: BaseModelFacts
    construct: Callable[[], nn.Module]
    split: Callable[[nn.Module], Parts] | None

    def backbone(self, network: nn.Module) -> StagedBackbone:
        """What `construct` made, without its classifier."""
        if self.split is None:
            return timm_models.TimmBackbone(network, self.facts.name)
        stages, pool = self.split(network)
        return ChainBackbone(stages, pool, self.facts.feature_dim, name=self.facts.name)


_BASE_MODELS: Final[dict[str, BaseModel]] = {}


def register_base_model(model: BaseModel) -> None:
    """Add a backbone, to the catalogue as well unless its facts are there.

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
    """One backbone, by its name in the catalogue or `timm_<name>`.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue.
        InvalidArgumentError: it is no backbone but a whole network.
    """
    facts = get_facts(name)
    if name in _BASE_MODELS:
        return _BASE_MODELS[name]
    if name.startswith(TIMM_PREFIX):
        return BaseModel(facts, partial(timm_models.construct, facts), None)
    text = f"{name} is a network for {facts.task.value.lower()}, not a backbone"
    raise InvalidArgumentError([Violation("encoder", text)])


def list_base_models() -> tuple[BaseModel, ...]:
    """All backbones but timm's, in the catalogue's order."""
    return tuple(_BASE_MODELS[facts.name] for facts in list_facts() if facts.name in _BASE_MODELS)


def build_backbone(
    name: str, weights: Weights, sources: WeightsSources, *, seed: int = 0, image_size: int = 0
) -> tuple[StagedBackbone, LoadedWeights | None]:
    """A backbone on the CPU in eval mode, and the weights that it was filled with.

    Args:
        name: in the catalogue, or `timm_<name>`.
        weights: pretrained or random.
        sources: of pretrained weights.
        seed: of random weights.
        image_size: side of the square inputs, pixels; 0 is its own. Only some of timm's must know it.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue.
        InvalidArgumentError: it is no backbone, the installed timm does not have it, or it does not take the size.
        WeightsUnavailableError: pretrained weights are asked for and no source has them.
        WeightsCorruptError: a weights file is damaged or of another network.
    """
    model = get_base_model(name)
    if image_size and (problem := model.facts.side_problem(image_size)):
        raise InvalidArgumentError([Violation("image_size", f"{problem}, for {name}")])
    # Before construction, so that no time is spent on a network that cannot be filled.
    loaded = load_weights(model.facts, sources) if weights is Weights.PRETRAINED else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model.construct()
    if loaded is not None:
        fill(network, loaded, model.facts, optional=outside_of_backbone(model))
    backbone = model.backbone(network)
    if isinstance(backbone, timm_models.TimmBackbone) and image_size:
        backbone.resize(image_size)
    return backbone.eval(), loaded


def outside_of_backbone(model: BaseModel) -> Callable[[str], bool]:
    """Of a tensor's name in the library's network: whether it is the classifier's, which a backbone leaves out."""
    with torch.device("meta"):
        network = model.construct()
        tensors = network.state_dict(keep_vars=True)
        kept = {id(tensor) for tensor in model.backbone(network).state_dict(keep_vars=True).values()}
    outside = {name for name, tensor in tensors.items() if id(tensor) not in kept}
    return outside.__contains__


def _register_all() -> None:
    for facts in list_facts():
        if facts.task is not Task.CLASSIFICATION:
            continue
        library, _, name = facts.library.partition("/")
        if library == "timm":
            register_base_model(BaseModel(facts, partial(timm.create_model, name), split_efficientnet_lite0))
        else:
            split = next(split for start, split in SPLITS.items() if name.startswith(start))
            register_base_model(BaseModel(facts, partial(torchvision.models.get_model, name, weights=None), split))


_register_all()
