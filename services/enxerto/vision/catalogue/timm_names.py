"""Backbones of timm, any of them, by name: timm itself is installed on the workers only.

What is known of them is in `timm.json`, which `enxerto.vision.torch.base_models.timm_table` writes.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any, Final, NotRequired, TypedDict, cast

from enxerto.vision.catalogue.facts import BaseModelFacts, DownloadableWeights
from enxerto.vision.specs import PreprocessSpec, Task

PREFIX: Final = "timm_"
USUAL: Final = PreprocessSpec(224, 224, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""timm's most frequent preprocessing; the table says where one is different."""


class Architecture(TypedDict):
    """A network of timm without its classifier; see `BaseModelFacts`. Most take any side, and have no `side_step`."""

    parameters: int
    feature_dim: int
    stages: list[str]
    has_pyramid: bool
    side_step: NotRequired[int]


class Published(TypedDict):
    """What timm publishes under a name, with a tag or without.

    `name` is timm's own. `licence` and `url` are empty where timm names none. `preprocess` holds what is not `USUAL`.
    """

    name: str
    licence: str
    url: str
    preprocess: dict[str, Any]


class Table(TypedDict):
    """All of one version of timm: `architectures` by timm's names, `published` by their `plain_name`."""

    timm: str
    architectures: dict[str, Architecture]
    published: dict[str, Published]


def plain_name(text: str) -> str:
    """timm's own name as it is written in base model names: what is neither letter nor digit becomes `_`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def timm_facts(name: str) -> BaseModelFacts | None:
    """Facts of `timm_<name>`; None when timm has no such model."""
    short = name.removeprefix(PREFIX)
    found = _table()["published"].get(short) if name != short else None
    if found is None:
        return None
    own = found["name"]
    architecture = _table()["architectures"][own.partition(".")[0]]
    return BaseModelFacts(
        name=name,
        title=f"timm {own}",
        task=Task.CLASSIFICATION,
        library=f"timm/{own}",
        licence=found["licence"] or "see the model card",
        licence_note="timm is Apache-2.0, but its weights come from many publishers with terms of their own, some of "
        "them non-commercial; the model card has them.",
        parameters=architecture["parameters"],
        feature_dim=architecture["feature_dim"],
        stages=tuple(architecture["stages"]),
        preprocess=PreprocessSpec.from_json({**USUAL.to_json(), **found["preprocess"]}),
        packaged=None,
        download=_download(name, found["url"]),
        has_pyramid=architecture["has_pyramid"],
        side_step=architecture.get("side_step", 1),
    )


def timm_names() -> list[str]:
    """Every `timm_<name>`, in order."""
    return [PREFIX + short for short in sorted(_table()["published"])]


def _download(name: str, url: str) -> DownloadableWeights | None:
    if not url:
        return None
    # The hub calls every file the same.
    rename = f"{name}.safetensors" if url.endswith("/model.safetensors") else ""
    return DownloadableWeights(url, rename)


@functools.cache
def _table() -> Table:
    text = resources.files(__package__).joinpath("timm.json").read_text(encoding="utf-8")
    return cast(Table, json.loads(text))
