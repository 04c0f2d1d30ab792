"""The states of a training run and of a sweep."""

import enum


class RunState(enum.StrEnum):
    """QUEUED → RUNNING → REGISTERING → SUCCEEDED; before a final state also FAILED.

    Before REGISTERING also CANCELLING → CANCELLED. QUEUED and RUNNING may become PAUSING → PAUSED, which becomes QUEUED
    again. A run whose training ends while it is PAUSING goes on to REGISTERING.
    """

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    REGISTERING = "REGISTERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in _FINAL

    @property
    def trains(self) -> bool:
        """Whether a job is wanted."""
        return self in (RunState.QUEUED, RunState.RUNNING)


_FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


class SweepState(enum.StrEnum):
    """RUNNING → SUCCEEDED; before a final state also CANCELLING → CANCELLED, or FAILED."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self not in (SweepState.RUNNING, SweepState.CANCELLING)
