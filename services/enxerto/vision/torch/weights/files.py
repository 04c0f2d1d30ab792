"""Files of tensors: safetensors, or pickles that hold nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError

from enxerto.kernel.errors import DataLossError
from enxerto.vision.safetensors_header import is_safetensors

_WRAPPERS: Final = ("state_dict", "model", "model_state", "state_dict_ema")
"""Under which names training programs put a network's tensors beside other things."""


class WeightsCorruptError(DataLossError):
    """A weights file is not what its name or its publisher says, or of another network."""

    reason = "WEIGHTS_CORRUPT"


def read_tensors(path: Path, source: str = "") -> Mapping[str, torch.Tensor]:
    """The tensors of a file by name, in the file's order, on the CPU. Its name does not matter.

    Args:
        path: of a safetensors file, or of what `torch.save` made of a state dict.
        source: what to call it in errors; the path when empty.

    Raises:
        WeightsCorruptError: it holds something else than named tensors, such as a pickle that would run code.
    """
    called = source or str(path)
    if is_safetensors(path):
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsCorruptError(f"{called}: a damaged safetensors file: {error}") from error
    try:
        # A path would be judged by its name.
        with path.open("rb") as file:
            # weights_only refuses every pickled object but tensors and plain containers.
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsCorruptError(_refusal(called, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError, OSError) as error:
        raise WeightsCorruptError(f"{called}: not a file of tensors: {str(error).partition(chr(10))[0]}") from error
    return _unwrapped(content, called)


def _refusal(called: str, problem: str) -> str:
    if "GLOBAL" in problem or "weights_only" in problem or "Unsupported" in problem:
        return (
            f"{called}: refused, because it is a pickle that holds more than tensors and could run code when read; "
            "save the network's state dict alone, best as safetensors"
        )
    return f"{called}: not a file of tensors: {problem.partition(chr(10))[0]}"


def _unwrapped(content: Any, called: str) -> Mapping[str, torch.Tensor]:
    if isinstance(content, Mapping):
        for name in _WRAPPERS:
            if isinstance(content.get(name), Mapping):
                return _unwrapped(content[name], called)
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    ):
        raise WeightsCorruptError(f"{called}: holds something else than named tensors")
    return dict(content)
