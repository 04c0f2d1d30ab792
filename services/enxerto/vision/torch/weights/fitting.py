"""Tensors of a file into the network that they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import nn

from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.torch.weights.files import WeightsCorruptError
from enxerto.vision.torch.weights.sources import LoadedWeights

_COUNTER: Final = ".num_batches_tracked"
"""Batch norm's count of batches, which files from before it existed lack; only cumulative averages read it."""

_SHOWN: Final = 5


def fill(
    network: nn.Module,
    loaded: LoadedWeights,
    facts: BaseModelFacts,
    *,
    optional: Callable[[str], bool] = lambda _: False,
) -> None:
    """Copy the file's tensors into `network`, by name; by order where a package names them differently.

    Args:
        network: as the library builds it; changed in place. Meta tensors are compared and not filled.
        loaded: from a file.
        facts: of the base model.
        optional: of a tensor's name: whether it may be missing or of another shape, as a head that is not used or new.

    Raises:
        WeightsCorruptError: tensors are missing, left over or of another shape; the message names them.
    """
    expected = network.state_dict(keep_vars=True)
    tensors = _named(loaded, expected, facts)
    missing = [name for name in expected if name not in tensors and not name.endswith(_COUNTER) and not optional(name)]
    extra = [name for name in tensors if name not in expected and not optional(name)]
    fitting = {name: tensor for name, tensor in tensors.items() if name in expected}
    shapes = [
        f"{name} is {_shape(tensor)}, not {_shape(expected[name])}"
        for name, tensor in fitting.items()
        if tensor.shape != expected[name].shape and not optional(name)
    ]
    if missing or extra or shapes:
        parts = [_list("missing", missing), _list("not of it", extra), _list("of another shape", shapes)]
        raise WeightsCorruptError(
            f"{loaded.source}: does not fit {facts.library}: {'; '.join(part for part in parts if part)}"
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            target = expected[name]
            if tensor.shape == target.shape and not target.is_meta:
                target.copy_(tensor)


def _named(
    loaded: LoadedWeights, expected: Mapping[str, torch.Tensor], facts: BaseModelFacts
) -> Mapping[str, torch.Tensor]:
    tensors = loaded.tensors
    packaged = facts.packaged
    if packaged is None or not packaged.by_order or loaded.sha256 != packaged.sha256:
        return tensors
    if len(tensors) != len(expected):
        raise WeightsCorruptError(
            f"{loaded.source}: does not fit {facts.library}: {len(tensors)} tensors, not {len(expected)}"
        )
    return dict(zip(expected, tensors.values(), strict=True))


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _list(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"
