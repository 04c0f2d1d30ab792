"""Writes what the catalogue knows of timm's backbones: `python -m enxerto.vision.torch.base_models.timm_table FILE`.

Every network is built without memory for its weights, which takes half an hour in all. Run it again for another
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
_SIDES: Final = {
    1: (163, 149),
    2: (158, 146, 176),
    4: (172, 148, 176),
    8: (184, 152, 176),
    14: (182, 154, 196),
    16: (208, 176),
    28: (196, 140),
    32: (224, 160, 288),
    64: (320, 192),
}
"""Steps between sides, in pixels, and multiples of each that are as awkward as there are."""


def architecture(name: str) -> Architecture:
    """What a network of timm is, by timm's name without a tag."""
    with torch.device("meta"):
        backbone = TimmBackbone(timm.create_model(name, pretrained=False), name)
    try:
        has_pyramid = bool(backbone.pyramid_info())
    except InvalidArgumentError:
        has_pyramid = False
    found = Architecture(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        feature_dim=backbone.feature_dim,
        stages=[stage for stage, _ in backbone.stages],
        has_pyramid=has_pyramid,
    )
    if (step := _side_step(backbone.eval())) != 1:
        found["side_step"] = step
    return found


def _side_step(backbone: TimmBackbone) -> int:
    """See `BaseModelFacts.side_step`; the backbone's side is another afterwards."""
    own = backbone.side
    for step, sides in _SIDES.items():
        if all(_takes(backbone, side) for side in sides if side != own):
            return step
    return 0


def _takes(backbone: TimmBackbone, side: int) -> bool:
    try:
        with torch.no_grad():
            backbone.resize(side)
            backbone.features(torch.empty(2, 3, side, side, device="meta"))
    except Exception:  # noqa: BLE001 (networks of a thousand authors)
        return False
    return True


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
