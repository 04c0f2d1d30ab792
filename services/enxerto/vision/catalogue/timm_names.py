"""Backbones of timm, any of them, by name alone: timm itself is installed on the workers only."""

from __future__ import annotations

import re
from typing import Final

from enxerto.vision.catalogue.facts import BaseModelFacts
from enxerto.vision.specs import PreprocessSpec, Task

PREFIX: Final = "timm_"

_NAME: Final = re.compile(r"timm(_[a-z0-9]+)+")


def plain_name(text: str) -> str:
    """timm's own name as it is written in base model names: what is neither letter nor digit becomes `_`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def timm_facts(name: str) -> BaseModelFacts | None:
    """Facts of `timm_<name>`; None when that is no such name. Whether timm knows it is found out on a worker."""
    if not _NAME.fullmatch(name):
        return None
    short = name.removeprefix(PREFIX)
    return BaseModelFacts(
        name=name,
        title=f"timm {short}",
        task=Task.CLASSIFICATION,
        library=f"timm/{short}",
        licence="see the model card",
        licence_note="timm is Apache-2.0, but its weights come from many publishers with terms of their own, some of "
        "them non-commercial; the model card names them.",
        parameters=0,
        feature_dim=0,
        stages=(),
        # timm's most usual, for readers that need some value.
        preprocess=PreprocessSpec(224, 224, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        packaged=None,
        download=None,
        by_name_only=True,
    )
