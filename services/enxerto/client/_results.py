"""What a caller reads: small frozen values, without protobuf.

Times are aware datetimes in UTC; sizes are in bytes, durations in seconds, ratios in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class SnapshotState(StrEnum):
    """Where an import is."""

    UNSPECIFIED = "UNSPECIFIED"
    IMPORTING = "IMPORTING"
    READY = "READY"
    FAILED = "FAILED"


class RunState(StrEnum):
    """Where a training run is."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    REGISTERING = "REGISTERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class VersionState(StrEnum):
    """Whether a version may be promoted and served."""

    UNSPECIFIED = "UNSPECIFIED"
    READY = "READY"
    QUARANTINED = "QUARANTINED"


class DeploymentState(StrEnum):
    """Whether a deployment answers."""

    UNSPECIFIED = "UNSPECIFIED"
    DEPLOYING = "DEPLOYING"
    READY = "READY"
    FAILED = "FAILED"
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a resource failed."""

    code: str
    """Name of the gRPC status code that it amounts to."""
    reason: str
    """Stable reason in upper snake case."""
    message: str
    """What happened, for people."""
    violations: tuple[str, ...] = ()
    """Every bad field or unmet condition, for people."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number measured on one split."""

    name: str
    value: float
    split: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named line of snapshots."""

    name: str
    display_name: str
    latest_snapshot: str
    """Newest READY snapshot; empty when there is none."""
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an import found."""

    severity: str
    """ERROR or WARNING."""
    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable copy of labelled images."""

    name: str
    state: SnapshotState
    digest: str
    """sha256 of the content."""
    class_names: tuple[str, ...]
    split_counts: Mapping[str, int]
    """Images in `train`, `val` and `test`."""
    size_bytes: int
    findings: tuple[Finding, ...]
    """Errors first; at most 1,000."""
    finding_count: int
    error: Failure | None
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A pretrained network that a run may start from."""

    name: str
    display_name: str
    library: str
    licence: str
    parameter_count: int
    feature_dim: int
    stages: tuple[str, ...]
    offline: bool
    """Whether its weights come with an installed package and need no network."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    phase: str
    epoch: int
    epoch_count: int
    images_done: int
    image_count: int
    images_per_second: float
    eta_s: float | None
    """Seconds that the rest of the training should take; None when it is not known."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training."""

    name: str
    state: RunState
    snapshot: str
    base_model: str
    weights: str
    strategy: str
    model: str
    settings: Mapping[str, Any]
    """The other settings in force, such as `epochs` and `learning_rate`."""
    progress: Progress | None
    metrics: tuple[Metric, ...]
    model_version: str
    """Registered version; empty until the run has SUCCEEDED."""
    stop_reason: str
    error: Failure | None
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None

    def metric(self, name: str, split: str | None = None) -> float | None:
        """A metric's value; the first one of that name when no split is given, None when it was not measured."""
        return metric_of(self.metrics, name, split)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run."""

    cursor: int
    """Give it to `watch` to continue after this event."""
    time: datetime | None
    kind: str
    """`state`, `progress`, `epoch` or `log`."""
    state: RunState | None = None
    progress: Progress | None = None
    metrics: tuple[Metric, ...] = ()
    learning_rate: float | None = None
    severity: str = ""
    message: str = ""
    model_version: str = ""
    error: Failure | None = None

    def metric(self, name: str, split: str | None = None) -> float | None:
        """A metric's value at the end of the epoch, or None."""
        return metric_of(self.metrics, name, split)


@dataclass(frozen=True, slots=True)
class Model:
    """A named line of versions."""

    name: str
    display_name: str
    description: str
    aliases: Mapping[str, str]
    """Alias to the version's full name."""
    latest_version: str
    create_time: datetime | None
    update_time: datetime | None
    etag: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a version."""

    filename: str
    role: str
    """MODEL, REPORT or OTHER."""
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of the exported graph with the trained network."""

    max_abs_difference: float
    agreement: float
    sample_count: int
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version came from."""

    snapshot: str
    snapshot_digest: str
    base_model: str
    weights_digest: str
    weights_source: str
    licence: str
    training_run: str


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable set of artifacts."""

    name: str
    state: VersionState
    class_names: tuple[str, ...]
    metrics: tuple[Metric, ...]
    parity: Parity | None
    lineage: Lineage
    artifacts: tuple[Artifact, ...]
    create_time: datetime | None

    def metric(self, name: str, split: str | None = None) -> float | None:
        """A metric's value; the first one of that name when no split is given, None when it was not measured."""
        return metric_of(self.metrics, name, split)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that answers."""

    name: str
    model_version: str
    replicas: int
    state: DeploymentState
    serving_version: str
    target_version: str
    error: Failure | None
    create_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True, slots=True)
class Category:
    """A class and how likely it is."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_s: float
    decode_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image."""

    label: str
    """The most likely class."""
    probability: float
    categories: tuple[Category, ...] = field(repr=False)
    """Most likely first."""
    model_version: str
    """Full name of the version that answered."""
    timings: Timings = field(repr=False)
    """Of the request that the image was part of."""


def metric_of(metrics: tuple[Metric, ...], name: str, split: str | None) -> float | None:
    """Find a metric by name, and by split when one is given."""
    for metric in metrics:
        if metric.name == name and split in (None, metric.split):
            return metric.value
    return None
