"""Base models by name."""

from __future__ import annotations

import difflib
from typing import Final

from enxerto.kernel.errors import NotFoundError
from enxerto.vision.catalogue.classification import CLASSIFICATION
from enxerto.vision.catalogue.detection import DETECTION
from enxerto.vision.catalogue.facts import BaseModelFacts
from enxerto.vision.catalogue.segmentation import SEGMENTATION
from enxerto.vision.catalogue.style import STYLE
from enxerto.vision.catalogue.timm_names import PREFIX, timm_facts, timm_names

_ALL: Final = (*CLASSIFICATION, *DETECTION, *SEGMENTATION, *STYLE)
_CATALOGUE: Final[dict[str, BaseModelFacts]] = {facts.name: facts for facts in _ALL}


class BaseModelNotFoundError(NotFoundError):
    """No base model has this name."""

    reason = "BASE_MODEL_NOT_FOUND"

    def __init__(self, name: str) -> None:
        close = close_names(name)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        known = ", ".join(sorted(_CATALOGUE))
        text = f"base model {name!r} is not in the catalogue; {hint}there are: {known}, and timm_<name> for any of timm"
        super().__init__("BaseModel", name, text)

    def __reduce__(self) -> tuple[type[BaseModelNotFoundError], tuple[str]]:
        return type(self), (self.resource_name,)


def close_names(name: str) -> list[str]:
    """At most three base models whose names are like one that there is not, the likest first."""
    names = timm_names() if name.startswith(PREFIX) else _CATALOGUE
    return difflib.get_close_matches(name, names, n=3, cutoff=0.5)


def get_facts(name: str) -> BaseModelFacts:
    """The facts of one base model, timm's by `timm_<name>`.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue; the message lists what is.
    """
    facts = _CATALOGUE.get(name) or timm_facts(name)
    if facts is None:
        raise BaseModelNotFoundError(name)
    return facts


def list_facts() -> tuple[BaseModelFacts, ...]:
    """All base models but timm's, those that work offline first, then by name."""
    return tuple(sorted(_CATALOGUE.values(), key=lambda facts: (not facts.works_offline, facts.name)))


def register_facts(facts: BaseModelFacts) -> None:
    """Add a base model to the catalogue of this process.

    Raises:
        ValueError: the name is taken.
    """
    if facts.name in _CATALOGUE:
        raise ValueError(f"base model {facts.name!r} is registered already")
    _CATALOGUE[facts.name] = facts
