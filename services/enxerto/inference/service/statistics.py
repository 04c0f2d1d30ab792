"""What each version of each deployment has done since this process took it up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from enxerto.inference.domain import MAX_TRAFFIC_TARGETS, BatchAnswer, PayloadKind, Timing
from enxerto.inference.ports import Meter
from enxerto.kernel.clock import Clock
from enxerto.kernel.names import DeploymentName, VersionName

_KEPT_VERSIONS = MAX_TRAFFIC_TARGETS + 2
"""Of a deployment: the main one, its canaries and its shadow."""


@dataclass(slots=True)
class Spent:
    """Time spent on so many of something."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more of it took so long."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class BatchTimes:
    """Where the time of calls went; of requests, the whole of the batch that each travelled in."""

    decode: Spent = field(default_factory=Spent)
    compute: Spent = field(default_factory=Spent)
    encode: Spent = field(default_factory=Spent)

    def add(self, answer: BatchAnswer | Timing) -> None:
        """One more took so long."""
        self.decode.add(answer.decode_s)
        self.compute.add(answer.compute_s)
        self.encode.add(answer.encode_s)


@dataclass(slots=True)
class VersionStatistics:
    """Counts of one version of one deployment. Belongs to one event loop."""

    success: Spent = field(default_factory=Spent)
    """Requests that were answered, from arrival."""
    fail: Spent = field(default_factory=Spent)
    """Requests that were not, from arrival."""
    queue: Spent = field(default_factory=Spent)
    """Waiting of the requests that were answered."""
    requests: BatchTimes = field(default_factory=BatchTimes)
    cache_hit: Spent = field(default_factory=Spent)
    """Looking for the answers that the response cache held."""
    cache_miss: Spent = field(default_factory=Spent)
    """Looking for those that it did not."""
    images: int = 0
    """That were answered by a replica."""
    last_s: float = 0.0
    """When a replica answered a request last, in seconds since 1970; 0 when none was."""
    executions: int = 0
    """Calls to replicas that came back."""
    batches: dict[int, BatchTimes] = field(default_factory=dict)
    """Calls to replicas by number of images."""


class Statistics:
    """The counts of every version."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[DeploymentName, dict[VersionName, VersionStatistics]] = {}

    def of(self, name: DeploymentName, version: VersionName) -> VersionStatistics:
        """The counts of one version; those of versions that were not used longest are forgotten."""
        known = self._versions.setdefault(name, {})
        found = known.pop(version, None) or VersionStatistics()
        while len(known) >= _KEPT_VERSIONS:
            del known[next(iter(known))]
        known[version] = found
        return found

    def keep(self, names: set[DeploymentName]) -> None:
        """Forget all other deployments."""
        for gone in set(self._versions) - names:
            del self._versions[gone]

    def of_deployment(self, name: DeploymentName) -> Mapping[VersionName, VersionStatistics]:
        """The counts of a deployment's versions."""
        return self._versions.get(name, {})

    def answered(self, name: DeploymentName, version: VersionName, images: int, timing: Timing, seconds: float) -> None:
        """A request was answered after so many seconds; one from the cache had no inference, as Triton counts it."""
        one = self.of(name, version)
        one.success.add(seconds)
        one.queue.add(timing.queue_s)
        if timing.lookup_s is not None:
            (one.cache_hit if timing.cached else one.cache_miss).add(timing.lookup_s)
        if timing.cached:
            return
        one.requests.add(timing)
        one.images += images
        one.last_s = self._clock.now().timestamp()

    def failed(self, name: DeploymentName, version: VersionName, seconds: float) -> None:
        """A request failed after so many seconds."""
        self.of(name, version).fail.add(seconds)

    def executed(self, name: DeploymentName, version: VersionName, images: int, answer: BatchAnswer) -> None:
        """A replica answered a batch."""
        one = self.of(name, version)
        one.executions += 1
        one.batches.setdefault(images, BatchTimes()).add(answer)

    def meter(self, name: DeploymentName, version: VersionName, meter: Meter) -> Meter:
        """A meter for the version's route, whose batches are counted here too."""
        return cast(Meter, _RouteMeter(self, name, version, meter))


class _RouteMeter:
    """Everything but the batches goes straight on."""

    def __init__(self, statistics: Statistics, name: DeploymentName, version: VersionName, meter: Meter) -> None:
        self._statistics = statistics
        self._name = name
        self._version = version
        self._meter = meter

    def batch_answered(self, kind: PayloadKind, items: int, answer: BatchAnswer, round_trip_s: float) -> None:
        self._statistics.executed(self._name, self._version, items, answer)
        self._meter.batch_answered(kind, items, answer, round_trip_s)

    def __getattr__(self, name: str) -> object:
        return getattr(self._meter, name)
