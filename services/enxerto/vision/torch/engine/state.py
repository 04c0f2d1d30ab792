"""Where training stands, as named tensors and JSON values: what a checkpoint holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from enxerto.vision.torch.learner import Score
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.recipe import Checkpoint

_BEFORE: Final = "before/"
_BEFORE_KEY: Final = "before"
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Before:
    """What a recipe did before a phase; kept in its checkpoints, so that a resumed run need not repeat it.

    Attributes:
        history: reports of earlier phases.
        meta: JSON values of the recipe's own.
        tensors: of the recipe's own, such as a probe's head.
    """

    history: Sequence[EpochReport] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    tensors: Tensors = field(default_factory=dict)

    def to_meta(self) -> dict[str, Any]:
        """Its JSON part."""
        history = [report_to_json(report) for report in self.history]
        return {_BEFORE_KEY: {"history": history, "meta": dict(self.meta)}}

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors, by the names that they have in a checkpoint."""
        return {f"{_BEFORE}{name}": tensor.detach().cpu() for name, tensor in self.tensors.items()}


def read_before(checkpoint: Checkpoint) -> Before:
    """What was done before the checkpoint's phase."""
    stored = checkpoint.meta[_BEFORE_KEY]
    history = [report_from_json(one) for one in stored["history"]]
    return Before(history, stored["meta"], part(checkpoint.tensors, _BEFORE))


def part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def prefixed(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """Copies on the CPU, contiguous, under a prefix."""
    return {f"{prefix}{name}": _plain(tensor) for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, torch.Tensor]:
    """An optimizer's state: `<prefix><index of the parameter>/<name>`. Its rates follow from the step."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{prefix}{index}/{name}": _plain(torch.as_tensor(value))
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """The reverse of `optimizer_tensors`, from names without the prefix."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def score_to_json(score: Score | None) -> dict[str, Any] | None:
    """As plain JSON values."""
    if score is None:
        return None
    return {"value": score.value, "loss": score.loss, "metrics": dict(score.metrics)}


def score_from_json(value: Mapping[str, Any] | None) -> Score | None:
    """The reverse of `score_to_json`."""
    return None if value is None else Score(value["value"], value["loss"], dict(value["metrics"]))


def report_to_json(report: EpochReport) -> dict[str, Any]:
    """As plain JSON values."""
    return {**dataclasses.asdict(report), "phase": report.phase.value, "metrics": dict(report.metrics)}


def report_from_json(value: Mapping[str, Any]) -> EpochReport:
    """The reverse of `report_to_json`."""
    return EpochReport(**{**value, "phase": Phase(value["phase"])})


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    # Files of tensors hold rows in their plain order, whatever order was faster to compute with.
    return tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format).clone()
