"""Use cases of the catalogue of base models. It is part of the installation, so there is nothing to store."""

from enxerto.kernel.errors import NotFoundError
from enxerto.kernel.names import BaseModelName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.errors import BaseModelMissingError
from enxerto.vision.catalogue import BaseModelFacts, close_names, get_facts, list_facts, timm_names


def base_model_id(name: str) -> str:
    """The id in resource names, where an underscore may not be, by the name in the catalogue."""
    return name.replace("_", "-")


_BY_ID = {base_model_id(facts.name): facts for facts in list_facts()}


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


def choices(name: str) -> str:
    """For people who asked for a base model that there is not: what they may have meant, and what there is."""
    close = " or ".join(f"baseModels/{base_model_id(one)}" for one in close_names(name.replace("-", "_")))
    known = ", ".join(f"baseModels/{one}" for one in base_model_ids())
    return f"{f'did you mean {close}? ' if close else ''}there are: {known}, and baseModels/timm-<name> for any of timm"


class BaseModels:
    """Reads the catalogue."""

    async def get(self, name: BaseModelName) -> BaseModelFacts:
        """One base model; raises BaseModelMissingError."""
        if facts := find_base_model(name):
            return facts
        raise BaseModelMissingError(name, choices(name.base_model))

    async def list_page(self, page: PageRequest, search: str = "") -> Page[BaseModelFacts]:
        """Base models by name: all but timm's, or those of all whose id contains a text."""
        timm = (base_model_id(name) for name in timm_names()) if search else ()
        names = sorted(one for one in (*_BY_ID, *timm) if search in one and one > page.after)
        chosen = names[: page.size]
        found = [get_facts(one.replace("-", "_")) for one in chosen]
        return Page(found, chosen[-1] if len(names) > page.size else "")
