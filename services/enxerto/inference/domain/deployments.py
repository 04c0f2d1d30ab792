"""Deployments, and how they change."""

import enum
import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from enxerto.inference.domain.comparisons import Comparison
from enxerto.inference.domain.rollouts import Fault, Rollout
from enxerto.inference.domain.specs import DeploymentSpec
from enxerto.kernel.names import DeploymentName, VersionName, VersionReference


class State(enum.StrEnum):
    """DEPLOYING becomes READY or FAILED; READY stays READY while a newer version is loaded."""

    DEPLOYING = "DEPLOYING"
    READY = "READY"
    FAILED = "FAILED"
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that answers requests. Transitions return a new deployment."""

    name: DeploymentName
    spec: DeploymentSpec
    state: State
    create_time: datetime
    update_time: datetime
    main: Rollout
    """Of `spec.model_version`."""
    companions: tuple[Rollout, ...] = ()
    """Of `spec.companions`, in that order."""
    comparison: Comparison | None = None
    """Of the main version and the shadow; None before anything was compared."""
    generation: int = 1
    """Counts the user's updates; what the etag shows, so that progress of a roll-out refuses no update."""
    revision: int = 0
    """Counts every write; guards against lost ones."""

    @classmethod
    def create(cls, name: DeploymentName, spec: DeploymentSpec, target: VersionName, now: datetime) -> Self:
        """A deployment whose versions are still to be loaded."""
        main = Rollout(spec.model_version, target=target)
        return cls(name, spec, State.DEPLOYING, now, now, main, tuple(map(Rollout, spec.companions)))

    @property
    def serving(self) -> VersionName | None:
        """The main version that answers."""
        return self.main.serving

    @property
    def target(self) -> VersionName | None:
        """The main version that should answer; None while its alias leads nowhere."""
        return self.main.target

    @property
    def fault(self) -> Fault | None:
        """Why the main version's target does not answer."""
        return self.main.fault

    @property
    def etag(self) -> str:
        """Opaque to callers; changes with every update by a user."""
        return hashlib.sha256(f"{self.name}:{self.create_time.isoformat()}:{self.generation}".encode()).hexdigest()[:16]

    @property
    def cursor(self) -> int:
        """Names this state of the deployment; another one after every write."""
        return self.revision + 1

    @property
    def rollouts(self) -> tuple[Rollout, ...]:
        """The main one first."""
        return self.main, *self.companions

    @property
    def attempting(self) -> bool:
        """Whether some version is to be loaded."""
        return self.state is not State.DELETING and any(rollout.attempting for rollout in self.rollouts)

    def companion(self, reference: VersionReference) -> Rollout | None:
        """What a version beside the main one has come to."""
        return next((one for one in self.companions if one.reference == reference), None)

    def update(self, spec: DeploymentSpec, now: datetime) -> "Deployment":
        """Take over what a user changed; what was found wanting is tried again."""
        kept = {one.reference: one.retry(one.reference) for one in self.companions}
        return replace(
            self,
            spec=spec,
            main=self.main.retry(spec.model_version),
            companions=tuple(kept.get(reference, Rollout(reference)) for reference in spec.companions),
            comparison=self.comparison if spec.shadow else None,
            state=self.state if self.main.serving or self.state is State.DELETING else State.DEPLOYING,
            update_time=now,
            generation=self.generation + 1,
        )

    def advance(self, rollout: Rollout, now: datetime) -> "Deployment":
        """Take over what has become of one of its references."""
        if self.state is State.DELETING or rollout in self.rollouts:
            return self
        if rollout.reference != self.main.reference:
            companions = tuple(rollout if one.reference == rollout.reference else one for one in self.companions)
            return replace(self, companions=companions, update_time=now)
        state = self.state
        if rollout.serving is None:
            state = State.FAILED if rollout.fault else State.DEPLOYING
        return replace(self, main=rollout, state=state, update_time=now)

    def answer(self, up: bool, now: datetime) -> "Deployment":
        """Say whether the main version has replicas; without them the cluster is starting them again."""
        state = State.READY if up else State.DEPLOYING
        if self.main.serving is None or state is self.state or self.state is State.DELETING:
            return self
        return replace(self, state=state, update_time=now)

    def compare(self, found: Comparison, now: datetime) -> "Deployment":
        """Take over what comparing the shadow has found."""
        comparison = self.comparison.add(found) if self.comparison else found
        return replace(self, comparison=comparison, update_time=now)

    def delete(self, now: datetime) -> "Deployment":
        """Answer nothing more and be removed; once more changes nothing."""
        return self if self.state is State.DELETING else replace(self, state=State.DELETING, update_time=now)
