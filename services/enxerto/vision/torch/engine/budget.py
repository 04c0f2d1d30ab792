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
    """What a run may still spend. The clock starts with the object.

    Args:
        spec: the limits.
        where: this worker's place; every worker stops at the same step.
        spent_s: in earlier phases and in attempts before this one.
    """

    def __init__(self, spec: StopSpec, where: Distribution, *, spent_s: float = 0.0) -> None:
        self._spec = spec
        self._where = where
        self._started = time.perf_counter() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._started

    @property
    def left_s(self) -> float:
        """Seconds that may still be spent; infinite without a limit."""
        limit = self._spec.max_duration_s
        return max(limit - self.spent_s, 0.0) if limit else math.inf

    def out_of_time(self, device: str = "cpu") -> bool:
        """Whether the time is over for any worker; collective when there is a limit."""
        if self._spec.max_duration_s == 0:
            return False
        return any_worker(self.spent_s >= self._spec.max_duration_s, self._where, device)

    def is_reached(self, score: Score | None) -> bool:
        """Whether a score is good enough."""
        target = self._spec.target_score
        return target is not None and score is not None and score.value >= target

    def out_of_patience(self, epochs_without_better: int) -> bool:
        """Whether to wait no longer."""
        return 0 < self._spec.early_stopping_patience <= epochs_without_better
