"""Whether a file of weights is what a base model can start from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import nn

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models.building import get_base_model, outside_of_backbone
from enxerto.vision.torch.weights import LoadedWeights, WeightsCorruptError, fill, read_tensors

_WITH_AUXILIARY = {"deeplabv3_resnet50", "fcn_resnet50"}


def check_weights(facts: BaseModelFacts, path: Path) -> str:
    """Read a file without running what it contains and compare names and shapes with the network.

    No network is filled: it is built without storage. A classifier's tensors need not fit, because runs put a new one
    in their place. Of YOLO networks only the reading is checked here; their own library compares the rest when a run
    starts.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        WeightsCorruptError: it is damaged, could run code, or is of another network; the message names tensors.
        InvalidArgumentError: the base model has no weights of its own, or timm does not have it.
    """
    if facts.takes_encoder:
        text = f"{facts.name} has no weights of its own: import those of its encoder"
        raise InvalidArgumentError([Violation("base_model", text)])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = read_tensors(path, path.name)
    _refuse_broken_numbers(tensors, path.name)
    loaded = LoadedWeights(tensors, sha256, path.name)
    if facts.task is Task.CLASSIFICATION or facts.weights_of:
        model = get_base_model(facts.weights_of or facts.name)
        fill(_without_storage(model.construct), loaded, model.facts, optional=outside_of_backbone(model))
    elif facts.library.startswith("torchvision/"):
        name = facts.library.partition("/")[2]
        # The published files hold the auxiliary classifiers that those networks were trained with.
        options = {"aux_loss": True} if name in _WITH_AUXILIARY else {}
        construct = partial(torchvision.models.get_model, name, weights=None, weights_backbone=None, **options)
        _check_whole(_without_storage(construct), loaded, facts)
    return sha256


def _check_whole(network: nn.Module, loaded: LoadedWeights, facts: BaseModelFacts) -> None:
    try:
        # By the library's own loading, which knows how the names of its tensors changed.
        misfits = network.load_state_dict(dict(loaded.tensors), strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsCorruptError(f"{loaded.source}: does not fit {facts.library}: {error}") from error
    # Files of networks with frozen statistics do not count batches.
    missing = [name for name in misfits.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or misfits.unexpected_keys:
        raise WeightsCorruptError(
            f"{loaded.source}: does not fit {facts.library}: {len(missing)} tensors missing, "
            f"{len(misfits.unexpected_keys)} not of it, such as {[*missing, *misfits.unexpected_keys][0]}"
        )


def _without_storage(construct: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return construct()


def _refuse_broken_numbers(tensors: Mapping[str, torch.Tensor], called: str) -> None:
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsCorruptError(f"{called}: {len(broken)} tensors hold numbers that are not finite: {broken[0]}")
