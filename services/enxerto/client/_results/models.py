"""Models, versions and deployments."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from enxerto.client._results.shared import Failure, Metric, Task, metric_of


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
class Model:
    """A named line of versions."""

    name: str
    display_name: str
    description: str
    task: Task
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
    task: Task
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
class TrafficTarget:
    """A version that answers a share of a deployment's requests."""

    model_version: str
    percent: int
    serving_version: str
    target_version: str
    error: Failure | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that gets copies of requests, and how far it agrees with the one that answers."""

    model_version: str
    percent: int
    serving_version: str
    target_version: str
    error: Failure | None
    image_count: int
    """Images compared."""
    agreement: float | None
    """Mean over the images, in [0, 1]; None before there are any."""
    dropped_count: int
    failed_count: int


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
    traffic: tuple[TrafficTarget, ...]
    """Shares of the requests for other versions than `model_version`."""
    shadow: Shadow | None
    settings: Mapping[str, Any]
    """What else was asked for, as `deploy` takes it: `autoscaling`, `batching`, `default_priority`, `device`, `pinned`,
    `placement`, `response_cache`, `warm_up_batch_sizes`."""
    create_time: datetime | None
    update_time: datetime | None
