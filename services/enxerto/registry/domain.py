"""Models, versions and blobs, and the rules of how they change."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from enxerto.kernel.names import ModelName, ProjectName, VersionName, VersionReference
from enxerto.registry.errors import (
    AliasNotFoundError,
    ModelChangedError,
    OutputsOfAnotherTaskError,
    VersionNotReadyError,
)
from enxerto.vision.contracts import MIN_AGREEMENT, ordered_outputs, outputs_text
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task, TensorSpec


class State(StrEnum):
    """Whether a version may be promoted and served."""

    READY = "READY"
    QUARANTINED = "QUARANTINED"


class Role(StrEnum):
    """What a file of a version is for."""

    MODEL = "MODEL"
    REPORT = "REPORT"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a version."""

    filename: str
    role: Role
    sha256: str
    media_type: str = ""
    size_bytes: int = 0
    """Filled in from the blob."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number measured on one split."""

    name: str
    value: float
    split: str
    class_name: str = ""
    """Empty for a metric of all classes."""


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

    snapshot: str = ""
    snapshot_digest: str = ""
    base_model: str = ""
    weights_digest: str = ""
    weights_source: str = ""
    licence: str = ""
    training_run: str = ""


@dataclass(frozen=True, slots=True)
class VersionContent:
    """What the creator says of a version; never changes."""

    artifacts: tuple[Artifact, ...]
    label_map: LabelMap
    preprocess: PreprocessSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lineage: Lineage
    metrics: tuple[Metric, ...] = ()
    parity: Parity | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def state(self, task: Task) -> State:
        """What the gate of a task decides."""
        agrees = self.parity is None or self.parity.agreement >= MIN_AGREEMENT[task]
        return State.READY if agrees else State.QUARANTINED

    def with_sizes(self, sizes: Mapping[str, int]) -> Self:
        """The same with the artifacts' sizes, given bytes by digest."""
        sized = tuple(dataclasses.replace(item, size_bytes=sizes[item.sha256]) for item in self.artifacts)
        return dataclasses.replace(self, artifacts=sized)


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable set of artifacts."""

    name: VersionName
    state: State
    task: Task
    content: VersionContent
    create_time: datetime


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """What a number or an alias means."""

    version: VersionName
    state: State


@dataclass(frozen=True, slots=True)
class ModelContent:
    """What the creator says of a model."""

    task: Task
    display_name: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A named line of versions."""

    name: ModelName
    content: ModelContent
    create_time: datetime
    update_time: datetime
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Alias to version number."""
    latest: int = 0
    """Number of the version created last; 0 when there is none."""
    revision: int = 1
    """Counts updates of the model and its aliases; a new version is not one, so that promoting needs no second read."""

    @classmethod
    def create(cls, name: ModelName, content: ModelContent, now: datetime) -> Self:
        """A model without versions."""
        return cls(name, content, create_time=now, update_time=now)

    def version(self, reference: VersionReference) -> VersionName | None:
        """The version of this model that a number or an alias means; None when there is none."""
        number = reference.number or self.aliases.get(reference.version, 0)
        return VersionName(self.name.project, self.name.model, number) if 0 < number <= self.latest else None

    @property
    def etag(self) -> str:
        """Changes with every revision, and is another for a model of the same name elsewhere."""
        text = f"{self.name} {self.create_time.timestamp()} {self.revision}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def require_outputs(self, content: VersionContent) -> None:
        """Hold what a version says that its graph gives against the contract of the task.

        Raises:
            OutputsOfAnotherTaskError: they are not the task's.
        """
        task = self.content.task
        if ordered_outputs(task, content.outputs) is None:
            found = ", ".join(f"{one.name} {one.datatype} {one.shape}" for one in content.outputs)
            raise OutputsOfAnotherTaskError(self.name, task, outputs_text(task), found)

    def next_version(self, content: VersionContent, now: datetime) -> tuple[Self, Version]:
        """The model after one more version, and that version."""
        name = VersionName(self.name.project, self.name.model, self.latest + 1)
        version = Version(name, content.state(self.content.task), self.content.task, content, now)
        return dataclasses.replace(self, latest=name.number), version

    def with_alias(self, alias: str, version: Version, *, etag: str, now: datetime) -> Self:
        """Point an alias to a version of this model.

        Raises:
            ModelChangedError: `etag` is given and is not the model's.
            VersionNotReadyError: the version is quarantined.
        """
        self._check(etag)
        if version.state is not State.READY:
            raise VersionNotReadyError(version.name, version.state)
        if self.aliases.get(alias) == version.name.number:
            return self
        return self._updated({**self.aliases, alias: version.name.number}, now)

    def without_alias(self, alias: str, *, etag: str, now: datetime) -> Self:
        """Remove an alias.

        Raises:
            ModelChangedError: `etag` is given and is not the model's.
            AliasNotFoundError: there is no such alias.
        """
        self._check(etag)
        if alias not in self.aliases:
            raise AliasNotFoundError(self.name, alias)
        return self._updated({key: number for key, number in self.aliases.items() if key != alias}, now)

    def _check(self, etag: str) -> None:
        if etag and etag != self.etag:
            raise ModelChangedError(self.name)

    def _updated(self, aliases: Mapping[str, int], now: datetime) -> Self:
        return dataclasses.replace(self, aliases=aliases, update_time=now, revision=self.revision + 1)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are whole in the registry, visible to one project."""

    parent: ProjectName
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a create idempotent."""

    id: str
    fingerprint: str
    """Digest of everything that the request says."""

    @classmethod
    def of(
        cls, request_id: str, parent: ModelName | ProjectName, content: ModelContent | VersionContent
    ) -> Self | None:
        """The request's identity, or None when the caller gave no id."""
        if not request_id:
            return None
        text = json.dumps([str(parent), dataclasses.asdict(content)], sort_keys=True)
        return cls(request_id, hashlib.sha256(text.encode()).hexdigest())
