"""What a user decides about a deployment."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from enxerto.inference.domain.requests import DEFAULT_PRIORITY
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
class ShadowShare:
    """A version that gets copies of a share of the requests, and whose answers nobody gets."""

    model_version: VersionReference
    percent: int
    """1 to 100, of what the main version answers."""


class Device(enum.StrEnum):
    """What replicas compute on."""

    CPU = "CPU"
    GPU = "GPU"


class Placement(enum.StrEnum):
    """Which replicas answer."""

    DEDICATED = "DEDICATED"
    """A deployment's own."""
    SHARED = "SHARED"
    """Those that hold the models of many deployments in turn."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Replicas between two bounds, as many as the load wants."""

    min_replicas: int
    max_replicas: int
    target_ongoing_batches: float = 1.0
    """Batches that a replica should be working on."""
    upscale_delay_s: float = 30.0
    """How long the load must be high before a replica is added."""
    downscale_delay_s: float = 600.0
    """How long the load must be low before one is removed."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are gathered; None is as the service was started with."""

    max_size: int | None = None
    """Images in one call to a replica."""
    max_delay_s: float | None = None
    """How long a request may wait for company while another call is in flight, or for a preferred size."""
    preferred_sizes: tuple[int, ...] = ()
    """Images in one call, ascending, that are worth waiting for."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas a version has."""

    replicas: int
    """With `autoscaling`, at the beginning, unless the version that it follows has more."""
    autoscaling: Autoscaling | None = None

    @property
    def least(self) -> int:
        """There are never fewer for long."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas

    def beginning(self, replicas: int = 0) -> "Scale":
        """Of a version that comes up: the load, of which it has none yet, takes away none of those that it begins with.

        Args:
            replicas: that it is to have at least, as far as the bounds let it.
        """
        bounds = self.autoscaling
        if bounds is None:
            return self
        first = min(max(self.replicas, replicas), bounds.max_replicas)
        return Scale(first, replace(bounds, min_replicas=first))

    def cover(self, other: "Scale") -> "Scale":
        """Enough for both, which are of one deployment."""
        count, ours, theirs = max(self.replicas, other.replicas), self.autoscaling, other.autoscaling
        if ours is None or theirs is None:
            return Scale(count)
        least, most = max(ours.min_replicas, theirs.min_replicas), max(ours.max_replicas, theirs.max_replicas)
        return Scale(count, replace(ours, min_replicas=least, max_replicas=most))


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What a user decides."""

    model_version: VersionReference
    replicas: int = 1
    """1 to 64."""
    labels: Mapping[str, str] = field(default_factory=dict)
    traffic: tuple[TrafficShare, ...] = ()
    autoscaling: Autoscaling | None = None
    batching: Batching = Batching()
    device: Device = Device.CPU
    warm_up_batch_sizes: tuple[int, ...] = ()
    """Batches that go through every replica of a version before it gets requests; empty is one image."""
    shadow: ShadowShare | None = None
    placement: Placement = Placement.DEDICATED
    pinned: bool = False
    """SHARED: whether its models stay in memory."""
    default_priority: int = DEFAULT_PRIORITY
    """Of requests that do not say, from 1."""
    response_cache: int = 0
    """Bytes of answers that are kept to be given again; 0 keeps none."""

    @property
    def shared(self) -> bool:
        """Whether replicas answer that hold other deployments' models too."""
        return self.placement is Placement.SHARED

    @property
    def companions(self) -> tuple[VersionReference, ...]:
        """The versions beside the main one."""
        shadows = (self.shadow.model_version,) if self.shadow else ()
        return (*(share.model_version for share in self.traffic), *shadows)

    def percent(self, reference: VersionReference) -> int:
        """Share of the requests by which the replicas of a version are counted; all for the main version."""
        percents = {share.model_version: share.percent for share in self.traffic}
        if self.shadow is not None:
            percents[self.shadow.model_version] = self.shadow.percent
        return percents.get(reference, 100)

    def scale(self, percent: int) -> Scale:
        """Replicas of a version with a share of the requests: in proportion, and at least one."""
        bounds = self.autoscaling
        if bounds is None:
            return Scale(_part(self.replicas, percent))
        least, most = _part(bounds.min_replicas, percent), _part(bounds.max_replicas, percent)
        first = min(max(_part(self.replicas, percent), least), most)
        return Scale(first, replace(bounds, min_replicas=least, max_replicas=most))


def _part(replicas: int, percent: int) -> int:
    return -(-replicas * percent // 100)
