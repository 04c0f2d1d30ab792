"""Use cases of the catalogue of base models. It is part of the installation, so there is nothing to store."""

from enxerto.kernel.errors import NotFoundError
from enxerto.kernel.names import BaseModelName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.errors import BaseModelMissingError
from enxerto.vision.catalogue import BaseModelFacts, get_facts, list_facts


def base_model_id(facts: BaseModelFacts) -> str:
    """The id in resource names, where an underscore may not be."""
    return facts.name.replace("_", "-")


_BY_ID = {base_model_id(facts): facts for facts in list_facts()}


def find_base_model(name: BaseModelName) -> BaseModelFacts | None:
    """The facts of a base model, or None; any backbone of timm is one, whether listed or not."""
    if name.base_model in _BY_ID:
        return _BY_ID[name.base_model]
    try:
        return get_facts(name.base_model.replace("-", "_"))
    except NotFoundError:
        return None


def base_model_ids() -> tuple[str, ...]:
    """Every id but timm's, in order."""
    return tuple(sorted(_BY_ID))


class BaseModels:
    """Reads the catalogue."""

    async def get(self, name: BaseModelName) -> BaseModelFacts:
        """One base model; raises BaseModelMissingError."""
        if facts := find_base_model(name):
            return facts
        raise BaseModelMissingError(name, base_model_ids())

    async def list_page(self, page: PageRequest) -> Page[BaseModelFacts]:
        """Base models by name."""
        names = [one for one in base_model_ids() if one > page.after]
        chosen = names[: page.size]
        return Page([_BY_ID[one] for one in chosen], chosen[-1] if len(names) > page.size else "")
