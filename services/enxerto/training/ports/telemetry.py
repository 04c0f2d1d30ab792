"""What counts."""

from collections.abc import Mapping
from typing import Protocol

from enxerto.training.domain import RunState, SnapshotState


class Telemetry(Protocol):
    """Counts what the domain does."""

    def runs_by_state(self, counts: Mapping[RunState, int]) -> None:
        """How many runs are in each state now."""
        ...

    def run_ended(self, state: RunState, duration_s: float) -> None:
        """A run reached a final state."""
        ...

    def images_trained(self, count: int) -> None:
        """Images went through a network."""
        ...

    def snapshot_imported(self, state: SnapshotState, duration_s: float) -> None:
        """An import ended."""
        ...

    def queue_length(self, count: int) -> None:
        """How many runs wait for the cluster."""
        ...

    def run_waited(self, seconds: float) -> None:
        """A run was submitted so long after it was created or resumed."""
        ...

    def event_lag(self, seconds: float) -> None:
        """How old an event of a job was when watchers could see it."""
        ...
