"""The states of a training run."""

import enum


class RunState(enum.StrEnum):
    """QUEUED → RUNNING → REGISTERING → SUCCEEDED; before a final state also CANCELLING → CANCELLED, or FAILED."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    REGISTERING = "REGISTERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in _FINAL


_FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
