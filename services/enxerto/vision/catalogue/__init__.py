"""The base models: facts, preprocessing and where their weights come from. Constructors are in `vision.torch`."""

from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights, PackagedWeights
from enxerto.vision.catalogue.listing import (
    BaseModelNotFoundError,
    close_names,
    get_facts,
    list_facts,
    register_facts,
)
from enxerto.vision.catalogue.timm_names import timm_names

__all__ = [
    "BaseModelFacts",
    "BaseModelNotFoundError",
    "DownloadableWeights",
    "PackagedWeights",
    "close_names",
    "get_facts",
    "list_facts",
    "register_facts",
    "timm_names",
]
