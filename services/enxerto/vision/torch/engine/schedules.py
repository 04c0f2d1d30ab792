"""Learning rates over a phase, as factors of the peak rate. Closed forms: a resumed run needs only its step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from enxerto.vision.finetuning import Schedule

_DROPS: Final = (2 / 3, 8 / 9)
_ONE_CYCLE_START: Final = 1 / 25
_ONE_CYCLE_END: Final = 1e-4
_ONE_CYCLE_RISE: Final = 0.3

Factor = Callable[[int], float]
"""Steps done to factor of the peak rate."""


def make_schedule(kind: Schedule, total_steps: int, warmup_fraction: float) -> Factor:
    """Linear warm-up, then the schedule.

    COSINE: half a cosine down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts). LINEAR: down to 0.
    STEP: a tenth after 2/3 and again after 8/9 of the steps (He et al. 2017, arXiv:1703.06870, and Detectron's 1x).
    ONE_CYCLE: up from a 25th for at least 30 % of the steps, then down to a ten thousandth, both along a cosine
    (Smith and Topin 2018, arXiv:1708.07120); momentum stays as it is.
    """
    total = max(1, total_steps)
    if kind is Schedule.ONE_CYCLE:
        return _one_cycle(total, max(warmup_fraction, _ONE_CYCLE_RISE))
    warmup = round(total * warmup_fraction)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return _after_warmup(kind, step / total, min(1.0, (step - warmup) / max(1, total - warmup)))

    return factor


def _after_warmup(kind: Schedule, done: float, progress: float) -> float:
    if kind is Schedule.COSINE:
        return _half_cosine(1.0, 0.0, progress)
    if kind is Schedule.LINEAR:
        return 1.0 - progress
    if kind is Schedule.STEP:
        return float(0.1 ** sum(done >= drop for drop in _DROPS))
    return 1.0


def _one_cycle(total: int, rise: float) -> Factor:
    peak = max(1, round(total * rise))

    def factor(step: int) -> float:
        if step < peak:
            return _half_cosine(_ONE_CYCLE_START, 1.0, step / peak)
        return _half_cosine(1.0, _ONE_CYCLE_END, min(1.0, (step - peak) / max(1, total - peak)))

    return factor


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
