"""Defaults that depend on task, strategy and optimizer."""

from dataclasses import dataclass
from typing import TypeVar

from enxerto.vision.finetuning.choices import Optimizer
from enxerto.vision.specs import Task

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Usual:
    """What a spec has where nothing was asked for, when it depends on the task."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int


def usual(task: Task, tunes: bool, rule: Optimizer) -> Usual:
    """Defaults of a task. A head on cached features stands a high rate, and its epochs cost next to nothing."""
    sgd = rule is Optimizer.SGD
    if task is Task.CLASSIFICATION:
        rate = (1e-2 if tunes else 5e-2) if sgd else (1e-3 if tunes else 3e-3)
        return Usual(10 if tunes else 30, 32 if tunes else 64, rate, 3 if tunes else 8)
    rate = 1e-2 if sgd else 1e-3
    if task is Task.STYLE:
        # A network from nothing: it wants hundreds of steps, and a few pictures make few steps an epoch.
        return Usual(100, 4, rate, 10)
    return Usual(20, 8, rate, 5)


def given(value: _T | None, default: _T) -> _T:
    """The value, or the default where it is None."""
    return default if value is None else value
