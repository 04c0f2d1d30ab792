"""What a run tells while it works, and how fast it is."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_INTERVAL_S: Final = 0.5


class Phase(enum.StrEnum):
    """Part of a run, in order. TRAIN: the heads alone, of tasks without cached features."""

    FEATURES = "FEATURES"
    LINEAR_PROBE = "LINEAR_PROBE"
    TRAIN = "TRAIN"
    FINE_TUNE = "FINE_TUNE"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """After an epoch.

    Attributes:
        epoch: from 1, within the phase.
        epochs: planned in the phase; early stopping may end it before.
        phase: which part of the run.
        train_loss: mean of the epoch's batches.
        val_loss: of the validation split after the epoch.
        score: the task's own metric on the validation split, higher is better.
        metrics: on the validation split, by name, `score` among them.
        learning_rate: of the head, at the end of the epoch.
        images_per_s: training images (or their features, in LINEAR_PROBE), over all workers.
        eta_s: until the end of training; what phases to come take is estimated from this one.
    """

    epoch: int
    epochs: int
    phase: Phase
    train_loss: float
    val_loss: float
    score: float
    metrics: Mapping[str, float]
    learning_rate: float
    images_per_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the optimizer is in an epoch.

    Attributes:
        done: steps so far.
        total: steps of the epoch.
        learning_rate: of the heads, in the last step.
    """

    done: int
    total: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """Within a phase, about twice a second.

    Attributes:
        phase: which part of the run.
        done: images so far, this worker's.
        total: images of the phase or epoch, this worker's.
        images_per_s: this worker's.
        eta_s: until `total`; of the features of a run that tunes, until the end of training.
        steps: where the optimizer is; None where nothing is optimized.
    """

    phase: Phase
    done: int
    total: int
    images_per_s: float
    eta_s: float
    steps: Steps | None = None


OnEpoch = Callable[[EpochReport], None]
OnStep = Callable[[StepReport], None]


class StepMeter:
    """Turns counts into step reports. `before` are images of the total that an attempt before this one did."""

    def __init__(self, phase: Phase, total: int, on_step: OnStep | None, before: int = 0) -> None:
        self._phase = phase
        self._total = total
        self._on_step = on_step
        self._started = self._last = time.perf_counter()
        self._before = self._done = before

    def add(self, images: int, steps: Steps | None = None) -> None:
        """Count images; reports when it is time, and at the end."""
        self._done += images
        now = time.perf_counter()
        if self._on_step is None or (now - self._last < _INTERVAL_S and self._done < self._total):
            return
        self._last = now
        rate = (self._done - self._before) / max(now - self._started, 1e-9)
        left = max(self._total - self._done, 0) / rate
        self._on_step(StepReport(self._phase, self._done, self._total, rate, left, steps))
