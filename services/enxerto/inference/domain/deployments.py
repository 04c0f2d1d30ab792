"""Deployments, and how they change."""

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from enxerto.kernel.names import DeploymentName, VersionName, VersionReference

MAX_REPLICAS = 64


class State(enum.StrEnum):
    """DEPLOYING becomes READY or FAILED; READY stays READY while a newer version is loaded."""

    DEPLOYING = "DEPLOYING"
    READY = "READY"
    FAILED = "FAILED"
    DELETING = "DELETING"


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
class DeploymentSpec:
    """What a user decides."""

    model_version: VersionReference
    replicas: int = 1
    """1 to 64."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that answers requests. Transitions return a new deployment."""

    name: DeploymentName
    spec: DeploymentSpec
    state: State
    create_time: datetime
    update_time: datetime
    serving: VersionName | None = None
    """The version that answers."""
    target: VersionName | None = None
    """The version that should answer; None while its alias leads nowhere."""
    fault: Fault | None = None
    """Why the target does not answer; set only after it was tried."""
    generation: int = 1
    """Counts the user's updates; what the etag shows, so that progress of a roll-out refuses no update."""
    revision: int = 0
    """Counts every write; guards against lost ones."""

    @classmethod
    def create(cls, name: DeploymentName, spec: DeploymentSpec, target: VersionName, now: datetime) -> Self:
        """A deployment whose target is still to be loaded."""
        return cls(name, spec, State.DEPLOYING, now, now, target=target)

    @property
    def etag(self) -> str:
        """Opaque to callers; changes with every update by a user."""
        return hashlib.sha256(f"{self.name}:{self.create_time.isoformat()}:{self.generation}".encode()).hexdigest()[:16]

    @property
    def attempting(self) -> bool:
        """Whether the target is to be loaded: it does not answer and was not found wanting."""
        return (
            self.state is not State.DELETING
            and self.target is not None
            and self.target != self.serving
            and self.fault is None
        )

    def update(self, spec: DeploymentSpec, now: datetime) -> "Deployment":
        """Take over what a user changed; a fault is tried again."""
        state = self.state if self.serving or self.state is State.DELETING else State.DEPLOYING
        return replace(self, spec=spec, state=state, fault=None, update_time=now, generation=self.generation + 1)

    def aim(self, target: VersionName, now: datetime) -> "Deployment":
        """Make `target` the version that should answer; the same one again changes nothing."""
        if target == self.target or self.state is State.DELETING:
            return self
        state = self.state if self.serving else State.DEPLOYING
        return replace(self, target=target, fault=None, state=state, update_time=now)

    def serve(self, version: VersionName, now: datetime) -> "Deployment":
        """`version` answers from now on."""
        if self.state is State.DELETING or (self.serving == version and self.state is State.READY):
            return self
        fault = None if version == self.target else self.fault
        return replace(self, serving=version, state=State.READY, fault=fault, update_time=now)

    def fail(self, fault: Fault, now: datetime) -> "Deployment":
        """The target cannot answer; what serves, serves on."""
        if self.state is State.DELETING or fault == self.fault:
            return self
        return replace(self, fault=fault, state=self.state if self.serving else State.FAILED, update_time=now)

    def suspend(self, now: datetime) -> "Deployment":
        """The version that serves has no replica now; the cluster is starting them again."""
        if self.state is not State.READY:
            return self
        return replace(self, state=State.DEPLOYING, update_time=now)

    def lose_alias(self, fault: Fault, now: datetime) -> "Deployment":
        """The alias leads nowhere any more; it is followed again when it is back."""
        if self.target is None and fault == self.fault:
            return self
        return replace(self.fail(fault, now), target=None)

    def delete(self, now: datetime) -> "Deployment":
        """Answer nothing more and be removed."""
        return replace(self, state=State.DELETING, update_time=now)
