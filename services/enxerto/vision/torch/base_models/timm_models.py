"""Any backbone of timm, its children grouped to stages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

import timm
import torch
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.torch.base_models.backbone import PyramidLevel, StagedBackbone, in_order, stride_of
from enxerto.vision.torch.learner import Stages

_NUMBERED: Final = re.compile(r"(layer|stage|block|group|s|dpn|down|level)s?_?\d+")
_LEAST_SHARE: Final = 0.05
"""Of all parameters: a list of modules that holds more of them is a list of stages."""


def construct(facts: BaseModelFacts) -> nn.Module:
    """timm's network with its classifier and random weights.

    Raises:
        InvalidArgumentError: the installed timm has no such model.
    """
    name = facts.library.partition("/")[2]
    if not timm.is_model(name.partition(".")[0]):
        text = f"timm {timm.__version__}, which the workers have, has no model {name!r}"
        raise InvalidArgumentError([Violation("base_model", text)])
    return timm.create_model(name, pretrained=False)


class TimmBackbone(StagedBackbone):
    """A network of timm without its classifier.

    Attributes:
        side: of the square inputs that it is made for, pixels.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        any_network: Any = network
        any_network.reset_classifier(0)
        super().__init__(name, int(getattr(network, "head_hidden_size", None) or any_network.num_features))
        self.network = network
        self.side = int((any_network.pretrained_cfg or {}).get("input_size", (3, 224, 224))[1])
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
        """Take square inputs of another side; only networks that have one built in know the difference.

        Raises:
            InvalidArgumentError: the network cannot be changed to it.
        """
        set_size = getattr(self.network, "set_input_size", None)
        if set_size is not None:
            try:
                set_size(img_size=(side, side))
            except (AssertionError, RuntimeError, ValueError) as error:
                text = f"{self.name} cannot take {side} x {side} pixels: {error}"
                raise InvalidArgumentError([Violation("image_size", text)]) from error
        self.side = side

    def _maps(self, images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        network: Any = self.network
        options = {"intermediates_only": True, "output_fmt": "NCHW"}
        return list(network.forward_intermediates(images, indices=indices, **options))

    def _levels_of(self, picture: torch.Tensor) -> tuple[PyramidLevel, ...]:
        if not hasattr(self.network, "forward_intermediates"):
            return ()
        # Some have their input's size built in.
        square = picture.new_zeros(1, 3, self.side, self.side)
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
