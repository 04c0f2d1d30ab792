"""A version on its way to answering, and why one does not."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from enxerto.kernel.names import VersionName, VersionReference


class FaultKind(enum.StrEnum):
    """The class of error that a fault is shown as."""

    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the target version does not answer."""

    kind: FaultKind
    reason: str
    """Stable, upper snake case."""
    message: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one reference of a deployment leads to. Transitions return a new rollout."""

    reference: VersionReference
    serving: VersionName | None = None
    """The version that answers."""
    target: VersionName | None = None
    """The version that should answer; None while the reference leads nowhere."""
    fault: Fault | None = None
    """Why the target does not answer; set only after it was tried."""

    @property
    def attempting(self) -> bool:
        """Whether the target is to be loaded: it does not answer and was not found wanting."""
        return self.target is not None and self.target != self.serving and self.fault is None

    @property
    def versions(self) -> tuple[VersionName, ...]:
        """What has to run for it: what answers, and what is being loaded."""
        serving = (self.serving,) if self.serving else ()
        return (*serving, self.target) if self.attempting and self.target else serving

    def aim(self, target: VersionName) -> "Rollout":
        """Make `target` the version that should answer; the same one again changes nothing."""
        return self if target == self.target else replace(self, target=target, fault=None)

    def serve(self, version: VersionName) -> "Rollout":
        """`version` answers from now on."""
        return replace(self, serving=version, fault=None if version == self.target else self.fault)

    def fail(self, fault: Fault) -> "Rollout":
        """The target cannot answer; what serves, serves on."""
        return replace(self, fault=fault)

    def lose(self, fault: Fault) -> "Rollout":
        """The reference leads nowhere any more; it is followed again when it does."""
        return replace(self, fault=fault, target=None)

    def retry(self, reference: VersionReference) -> "Rollout":
        """Try again what was found wanting, or follow another reference."""
        return replace(self, reference=reference, fault=None)


def find_alias(rollouts: Sequence[Rollout], alias: str) -> Rollout | None:
    """The rollout that follows an alias of the main version's model; the main one is the first of these."""
    if not rollouts:
        return None
    reference = replace(rollouts[0].reference, version=alias)
    return next((rollout for rollout in rollouts if rollout.reference == reference), None)
