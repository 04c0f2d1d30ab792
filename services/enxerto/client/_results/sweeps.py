"""Sweeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from enxerto.client._results.runs import RunState
from enxerto.client._results.shared import Failure


class SweepState(StrEnum):
    """Where a sweep is."""

    UNSPECIFIED = "UNSPECIFIED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Between:
    """Values of a sweep's parameter between two bounds; whole numbers when both bounds are."""

    low: float
    high: float
    log: bool = False
    """Whether each factor, rather than each difference, is as likely."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One try of a sweep."""

    run: str
    parameters: Mapping[str, str]
    state: RunState
    score: float | None
    """Best result on the validation split so far."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A search for better settings."""

    name: str
    state: SweepState
    model: str
    parameters: tuple[str, ...]
    """Settings that vary."""
    max_trials: int
    trials: tuple[Trial, ...]
    best_run: str
    best_score: float | None
    error: Failure | None
    create_time: datetime | None
    end_time: datetime | None
