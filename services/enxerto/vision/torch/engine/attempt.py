"""What an attempt at a run begins with."""

from __future__ import annotations

from dataclasses import dataclass

from enxerto.vision.torch.engine.budget import Budget
from enxerto.vision.torch.recipe import Checkpoint, Job


@dataclass(frozen=True, slots=True)
class Attempt:
    """Begin one before pictures are read: its time counts from there on, with that of the attempts before it.

    Attributes:
        stored: the run's last checkpoint; None without.
        budget: of the whole run.
    """

    stored: Checkpoint | None
    budget: Budget

    @classmethod
    def begin(cls, job: Job) -> Attempt:
        """Load the run's checkpoint and start the clock; called on every worker."""
        stored = job.checkpoints.load() if job.checkpoints is not None else None
        spent_s = 0.0 if stored is None else float(stored.meta["spent_s"])
        return cls(stored, Budget(job.spec.stop.max_duration_s, job.where, spent_s=spent_s))
