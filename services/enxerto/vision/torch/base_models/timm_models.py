"""Any backbone of timm: found by name, with timm's own preprocessing and weights, its children grouped to stages."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import timm
import torch
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.catalogue import BaseModelFacts, DownloadableWeights
from enxerto.vision.catalogue.timm_names import PREFIX, plain_name
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models.backbone import PyramidLevel, StagedBackbone, in_order, stride_of
from enxerto.vision.torch.learner import Stages

_NUMBERED: Final = re.compile(r"(layer|stage|block|group|s|dpn|down|level)s?_?\d+")
_LEAST_SHARE: Final = 0.05
"""Of all parameters: a list of modules that holds more of them is a list of stages."""


def complete_facts(facts: BaseModelFacts) -> BaseModelFacts:
    """Facts of a `timm_` base model with what the installed timm says; others unchanged.

    `parameters`, `feature_dim` and `stages` stay empty: they need the network.

    Raises:
        InvalidArgumentError: timm has no such model; the message names close ones.
    """
    if not facts.by_name_only:
        return facts
    name = timm_name(facts.name)
    # Names without a tag have timm's default one; a model without weights has no configuration to speak of.
    config: Any = timm.get_pretrained_cfg(name)
    values: Mapping[str, Any] = config.to_dict() if config is not None else {}
    note = facts.licence_note
    if licence := values.get("license"):
        note = f"timm says {licence}. {note}"
    return replace(
        facts,
        title=f"timm {name}",
        library=f"timm/{name}",
        licence_note=note,
        preprocess=_preprocess(values, facts.preprocess),
        download=_download(facts.name, values),
    )


def timm_name(name: str) -> str:
    """timm's own name of `timm_<name>`, its tag included where the name has it.

    Raises:
        InvalidArgumentError: timm has no such model; the message names close ones.
    """
    names = _names()
    short = name.removeprefix(PREFIX)
    if short in names:
        return names[short]
    close = difflib.get_close_matches(short, names, n=5, cutoff=0.6)
    hint = f"; close to it are {', '.join(PREFIX + one for one in close)}" if close else ""
    raise InvalidArgumentError([Violation("base_model", f"timm {timm.__version__} has no model {short!r}{hint}")])


def construct(name: str) -> nn.Module:
    """timm's network with its classifier and random weights."""
    return timm.create_model(timm_name(name), pretrained=False)


@functools.cache
def _names() -> Mapping[str, str]:
    # Architectures after the tagged names, so that they win where both are written alike.
    every = (*timm.list_pretrained(), *timm.list_models())
    return {plain_name(name): name for name in every}


def _preprocess(config: Mapping[str, Any], usual: PreprocessSpec) -> PreprocessSpec:
    size = config.get("input_size", (3, usual.height, usual.width))
    return PreprocessSpec(
        height=size[1],
        width=size[2],
        crop_fraction=float(config.get("crop_pct", usual.crop_fraction)),
        # Those few that name another filter, such as lanczos, are close to bicubic.
        interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        mean=_triple(config.get("mean", usual.mean)),
        std=_triple(config.get("std", usual.std)),
    )


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _download(name: str, config: Mapping[str, Any]) -> DownloadableWeights | None:
    # The hub has timm's own names of tensors; files elsewhere may have their first publisher's.
    if hub := config.get("hf_hub_id"):
        file = config.get("hf_hub_filename") or "model.safetensors"
        suffix = ".safetensors" if file.endswith(".safetensors") else ".pth"
        return DownloadableWeights(f"https://huggingface.co/{hub}/resolve/main/{file}", rename=name + suffix)
    url = str(config.get("url", ""))
    if url.endswith((".pth", ".safetensors")):
        return DownloadableWeights(url)
    return None


class TimmBackbone(StagedBackbone):
    """A network of timm without its classifier."""

    def __init__(self, network: nn.Module, name: str) -> None:
        any_network: Any = network
        any_network.reset_classifier(0)
        super().__init__(name, int(getattr(network, "head_hidden_size", None) or any_network.num_features))
        self.network = network
        self._side = int((any_network.pretrained_cfg or {}).get("input_size", (3, 224, 224))[1])
        self._indices: tuple[int, ...] = ()

    @property
    def stages(self) -> Stages:
        """Names and modules in order from input to output: stem, the numbered parts, top."""
        return list(_grouped(self.network))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) standardised images to (N, feature_dim) pooled features."""
        network: Any = self.network
        return cast(torch.Tensor, network.forward_head(network.forward_features(images), pre_logits=True))

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) standardised images to one map for each level of `pyramid_info`."""
        self.pyramid_info()
        maps = self._maps(images, list(self._indices))
        return [maps[index] for index in range(len(self._indices))]

    def resize(self, side: int) -> None:
        """Take square inputs of another side; only networks that have one built in know the difference."""
        set_size = getattr(self.network, "set_input_size", None)
        if set_size is not None:
            set_size(img_size=(side, side))
        self._side = side

    def _maps(self, images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        network: Any = self.network
        options = {"intermediates_only": True, "output_fmt": "NCHW"}
        return list(network.forward_intermediates(images, indices=indices, **options))

    def _levels_of(self, picture: torch.Tensor) -> tuple[PyramidLevel, ...]:
        if not hasattr(self.network, "forward_intermediates"):
            return ()
        # Some have their input's size built in.
        square = picture.new_zeros(1, 3, self._side, self._side)
        found: dict[int, tuple[int, PyramidLevel]] = {}
        homes = self._homes()
        maps = self._maps(square, None)
        for index, features in enumerate(maps):
            stride = stride_of(features, square)
            if stride is not None:
                home = homes[index] if len(homes) == len(maps) else len(self.stages) - 1
                found[stride] = (index, PyramidLevel(stride, features.shape[1], home))
        levels = in_order({stride: level for stride, (_, level) in found.items()})
        self._indices = tuple(found[level.stride][0] for level in levels)
        return levels

    def _homes(self) -> list[int]:
        """For each of timm's own feature maps, the index of the stage that holds the module that gives it."""
        info: Any = getattr(self.network, "feature_info", None)
        entries = info.get_dicts() if hasattr(info, "get_dicts") else (info or [])
        stages = [set(map(id, stage.modules())) for _, stage in self.stages]
        homes = []
        for entry in entries:
            try:
                module = self.network.get_submodule(entry["module"])
            except AttributeError:
                # A few name a place between modules; nobody can say which stage that is.
                return []
            homes += [next((index for index, held in enumerate(stages) if id(module) in held), len(stages) - 1)]
        return homes


def _grouped(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children in order: what comes before the first numbered part is the stem, what comes after the last is the top.

    A list of modules with a share of the parameters that counts is taken for a list of such parts.
    """
    total = sum(parameter.numel() for parameter in network.parameters())
    parts: list[tuple[str, nn.Module, bool]] = []
    for name, child in network.named_children():
        held = sum(parameter.numel() for parameter in child.parameters())
        listed = isinstance(child, nn.Sequential | nn.ModuleList) and len(child) > 1
        if _NUMBERED.fullmatch(name):
            parts.append((name, child, True))
        elif listed and held > _LEAST_SHARE * total and name not in ("stem", "head", "classifier"):
            parts += [(f"{name.rstrip('s')}{key}", part, True) for key, part in child.named_children()]
        else:
            parts.append((name, child, False))
    numbered = [index for index, part in enumerate(parts) if part[2]]
    first, last = (numbered[0], numbered[-1]) if numbered else (0, len(parts) - 1)
    own = nn.ParameterList(parameter for _, parameter in network.named_parameters(recurse=False))
    stem = nn.ModuleList([*([own] if len(own) else []), *(part[1] for part in parts[:first])])
    top = nn.ModuleList(part[1] for part in parts[last + 1 :])
    groups = [("stem", stem), *((name, part) for name, part, _ in parts[first : last + 1]), ("top", top)]
    return ((name, group) for name, group in groups if next(group.parameters(), None) is not None)
