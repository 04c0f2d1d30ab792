"""The base models: facts, preprocessing and where their weights come from. Constructors are in `vision.torch`."""

from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights, PackagedWeights
from enxerto.vision.catalogue.listing import BaseModelNotFoundError, get_facts, list_facts, register_facts

__all__ = [
    "BaseModelFacts",
    "BaseModelNotFoundError",
    "DownloadableWeights",
    "PackagedWeights",
    "get_facts",
    "list_facts",
    "register_facts",
]
