"""Writes what the catalogue knows of timm's backbones: `python -m enxerto.vision.torch.base_models.timm_table FILE`.

Every network is built without memory for its weights, which takes a quarter of an hour in all. Run it again for another
version of timm, or when the grouping to stages changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import timm
import torch

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.catalogue.timm_names import USUAL, Architecture, Published, plain_name
from enxerto.vision.torch.base_models.timm_models import TimmBackbone

_USUAL: Final = USUAL.to_json()


def architecture(name: str) -> Architecture:
    """What a network of timm is, by timm's name without a tag."""
    with torch.device("meta"):
        backbone = TimmBackbone(timm.create_model(name, pretrained=False), name)
    try:
        has_pyramid = bool(backbone.pyramid_info())
    except InvalidArgumentError:
        has_pyramid = False
    return Architecture(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        feature_dim=backbone.feature_dim,
        stages=[stage for stage, _ in backbone.stages],
        has_pyramid=has_pyramid,
    )


def published(name: str) -> Published:
    """What timm publishes under a name; under one without a tag, what its default tag has."""
    config: Any = timm.get_pretrained_cfg(name)
    values: Mapping[str, Any] = config.to_dict() if config is not None else {}
    return Published(
        name=name, licence=str(values.get("license") or ""), url=_url(values), preprocess=_preprocess(values)
    )


def main(path: Path) -> None:
    """Write the table of the installed timm, one line for each name."""
    architectures = {}
    for name in timm.list_models():
        try:
            architectures[name] = architecture(name)
        except Exception as error:  # noqa: BLE001 (networks of a thousand authors)
            sys.stderr.write(f"left out: {name}: {type(error).__name__}: {error}\n")
    tagged = [name for name in timm.list_pretrained() if name.partition(".")[0] in architectures]
    # Architectures after the tagged names, so that they win where both are written alike.
    rows = {plain_name(name): published(name) for name in (*tagged, *architectures)}
    parts: dict[str, Mapping[str, object]] = {"architectures": architectures, "published": rows}
    text = [f'{{"timm": "{timm.__version__}"']
    for part, values in parts.items():
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(values.items()))
        text.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    path.write_text(",\n".join(text) + "}\n", encoding="utf-8")


def _url(config: Mapping[str, Any]) -> str:
    # The hub has timm's own names of tensors; files elsewhere may have their first publisher's.
    if hub := config.get("hf_hub_id"):
        return f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
    url = str(config.get("url", ""))
    return url if url.endswith((".pth", ".safetensors")) else ""


def _preprocess(config: Mapping[str, Any]) -> dict[str, Any]:
    _, height, width = config.get("input_size", (3, USUAL.height, USUAL.width))
    values = {
        "height": height,
        "width": width,
        # A few resize to less than they cut out, and pad.
        "crop_fraction": min(float(config.get("crop_pct", USUAL.crop_fraction)), 1.0),
        # Those few that name another filter, such as lanczos, are close to bicubic.
        "interpolation": "bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        "mean": [float(value) for value in config.get("mean", USUAL.mean)],
        "std": [float(value) for value in config.get("std", USUAL.std)],
    }
    return {key: value for key, value in values.items() if value != _USUAL[key]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
