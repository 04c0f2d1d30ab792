"""What a user decides about a deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enxerto.kernel.names import VersionReference

MAX_REPLICAS = 64
MAX_TRAFFIC_TARGETS = 8
MAX_TRAFFIC_PERCENT = 99
"""Of all targets together: the main version always has a share."""


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """A share of the requests for another version than the main one."""

    model_version: VersionReference
    percent: int
    """1 to 99."""


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What a user decides."""

    model_version: VersionReference
    replicas: int = 1
    """1 to 64."""
    labels: Mapping[str, str] = field(default_factory=dict)
    traffic: tuple[TrafficShare, ...] = ()

    @property
    def companions(self) -> tuple[VersionReference, ...]:
        """The versions beside the main one."""
        return tuple(share.model_version for share in self.traffic)

    def replicas_for(self, reference: VersionReference) -> int:
        """Replicas of what a reference leads to: of a companion, in proportion to its share and at least one."""
        percent = {share.model_version: share.percent for share in self.traffic}.get(reference, 100)
        return -(-self.replicas * percent // 100)
