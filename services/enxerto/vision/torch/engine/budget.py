"""When to stop: patience, time and a score that is good enough."""

from __future__ import annotations

import enum
import math
import time

from enxerto.vision.finetuning import StopSpec
from enxerto.vision.torch.collectives import Distribution, any_worker
from enxerto.vision.torch.learner import Score


class StopReason(enum.StrEnum):
    """Why a phase ended."""

    EPOCHS = "EPOCHS"
    EARLY_STOPPING = "EARLY_STOPPING"
    MAX_DURATION = "MAX_DURATION"
    TARGET_SCORE = "TARGET_SCORE"


class Budget:
    """The time that a run may still take. The clock starts with the object.

    Args:
        most_s: seconds that the run may take; 0 is no limit.
        where: this worker's place; every worker stops at the same step.
        spent_s: in attempts before this one.
    """

    def __init__(self, most_s: float, where: Distribution, *, spent_s: float = 0.0) -> None:
        self._most_s = most_s
        self._where = where
        self._started = time.perf_counter() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._started

    @property
    def left_s(self) -> float:
        """Seconds that may still be spent; infinite without a limit."""
        return max(self._most_s - self.spent_s, 0.0) if self._most_s else math.inf

    def out_of_time(self, device: str = "cpu") -> bool:
        """Whether the time is over for any worker; collective when there is a limit."""
        return bool(self._most_s) and any_worker(self.left_s == 0, self._where, device)


def is_reached(stop: StopSpec, score: Score | None) -> bool:
    """Whether a score is good enough."""
    return stop.target_score is not None and score is not None and score.value >= stop.target_score


def out_of_patience(stop: StopSpec, epochs_without_better: int) -> bool:
    """Whether to wait no longer."""
    return 0 < stop.early_stopping_patience <= epochs_without_better
