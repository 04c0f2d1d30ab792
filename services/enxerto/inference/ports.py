"""What the inference service needs from the world."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from enxerto.inference.domain import (
    Application,
    ApplicationStatus,
    BatchAnswer,
    Deployment,
    Endpoint,
    FeedbackRecord,
    LiveAccuracy,
    Meaning,
    Occupancy,
    Payload,
    PayloadKind,
    Pool,
    Sample,
    SamplesUsage,
    SamplingPolicy,
    ServableVersion,
    State,
)
from enxerto.kernel.names import DeploymentName, ProjectName, SampleName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest
from enxerto.vision.embeddings import EmbeddingReference
from enxerto.vision.onnx.golden import Golden
from enxerto.vision.specs import Task


class DeploymentStore(Protocol):
    """Keeps deployments. Every method is one transaction."""

    async def create(self, deployment: Deployment, request_id: str) -> Deployment:
        """Keep a new deployment, or return what an earlier call with the same request id made.

        Raises:
            DeploymentExistsError: there is one of this name.
            RequestIdReusedError: the earlier call said something else.
        """
        ...

    async def get(self, name: DeploymentName) -> Deployment:
        """Read one, or raise `DeploymentNotFoundError`."""
        ...

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        """Deployments of a project by id, in byte order."""
        ...

    async def all(self) -> Sequence[Deployment]:
        """Every deployment of every project."""
        ...

    async def replace(self, deployment: Deployment) -> Deployment:
        """Write over the same revision; return it with the next one.

        Raises:
            DeploymentNotFoundError: it is gone.
            DeploymentChangedError: someone else wrote in between.
        """
        ...

    async def remove(self, name: DeploymentName) -> None:
        """Forget one with the facts of its versions; one that is gone already is no error."""
        ...

    async def keep_facts(self, name: DeploymentName, versions: Collection[ServableVersion]) -> None:
        """Keep what is known of the versions that serve a deployment, and of no others."""
        ...

    async def facts(self, name: DeploymentName, version: VersionName) -> ServableVersion | None:
        """What was kept of a version, if anything was."""
        ...


class ModelRegistry(Protocol):
    """Where versions come from."""

    async def resolve(self, reference: VersionReference) -> ServableVersion:
        """The version that a number or an alias means now.

        Raises:
            VersionNotFoundError: there is none.
            VersionNotServableError: it is quarantined, or not something that this service can serve.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...

    async def meanings(self, references: Collection[VersionReference]) -> Mapping[VersionReference, Meaning]:
        """What many numbers and aliases mean now, at the price of one question; what means nothing is left out.

        Raises:
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...

    async def golden(self, version: ServableVersion) -> Golden | None:
        """The inputs that a version came with and what it answered, if it came with any.

        Raises:
            VersionNotServableError: they cannot be read.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...

    async def labels(self, name: VersionName) -> tuple[str, ...]:
        """A version's classes in order, whether or not it may be served.

        Raises:
            VersionNotFoundError: there is no such version.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...

    async def embedding_reference(self, name: VersionName) -> EmbeddingReference | None:
        """What the version's embeddings of training images are like; None when it keeps no reference.

        Raises:
            VersionNotFoundError: there is no such version.
            RegistryUnavailableError: the registry cannot be reached.
        """
        ...


class ReplicaCluster(Protocol):
    """What places, heals and scales the replicas."""

    async def apply(self, applications: Sequence[Application | Pool]) -> None:
        """Make these, and only these, the applications that run. Returns before they do.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        ...

    async def observe(self) -> Mapping[str, ApplicationStatus]:
        """Every application by name.

        Raises:
            UnavailableError: the cluster cannot be reached.
        """
        ...


class Replicas(Protocol):
    """Calls to replicas."""

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        """Run one batch, made of payloads of one kind, on one replica.

        Raises:
            ReplicasUnavailableError: the replica is gone, belongs to someone else, or did not answer in time.
            NoRoomError: a replica of the pool has no room for the model now.
            ModelTooLargeError: it never has.
            VersionNotServableError: a replica of the pool cannot load it.
        """
        ...

    async def arrange(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy:
        """Tell a replica of the pool which models it is for and which of them stay; read what it holds.

        Raises:
            ReplicasUnavailableError: the replica does not answer.
        """
        ...

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        """Close the connections to all others."""
        ...


class QualityStore(Protocol):
    """Keeps feedback, sampling policies and what is known of samples. Every method is one transaction."""

    async def put_feedback(self, records: Sequence[FeedbackRecord]) -> None:
        """Keep all of them; each takes the place of what was said of the same image."""
        ...

    async def accuracies(self, name: DeploymentName, since: datetime) -> Sequence[LiveAccuracy]:
        """Feedback about answers given since then, by version, the one with the most first."""
        ...

    async def forget_feedback(self, before: datetime) -> None:
        """Remove the feedback about answers given before then, of every deployment."""
        ...

    async def policy(self, name: DeploymentName) -> SamplingPolicy | None:
        """The policy of a deployment, if one was put."""
        ...

    async def policies(self) -> Sequence[SamplingPolicy]:
        """Every policy."""
        ...

    async def put_policy(self, policy: SamplingPolicy) -> None:
        """Keep a policy instead of the one before."""
        ...

    async def add_sample(self, sample: Sample) -> None:
        """Keep a new sample."""
        ...

    async def get_sample(self, name: SampleName) -> Sample:
        """Read one with its true label, or raise `SampleNotFoundError`."""
        ...

    async def list_samples(self, name: DeploymentName, page: PageRequest) -> Page[Sample]:
        """A deployment's samples with their true labels, by id, which is the order of time."""
        ...

    async def samples_before(self, name: DeploymentName, before: datetime) -> Sequence[SampleName]:
        """Some samples from before then; none when there are no more."""
        ...

    async def remove_sample(self, name: SampleName) -> None:
        """Forget one; one that is gone already is no error."""
        ...

    async def samples_usage(self, name: DeploymentName) -> SamplesUsage:
        """What a deployment's samples take."""
        ...

    async def deployments(self) -> set[DeploymentName]:
        """Every deployment that something is kept of."""
        ...

    async def forget(self, name: DeploymentName, before: datetime) -> None:
        """Remove a deployment's feedback and policy from before then."""
        ...


class SampleFiles(Protocol):
    """Keeps the images of samples."""

    async def put(self, name: SampleName, content: bytes) -> None:
        """Keep an image lastingly, or raise `StorageUnavailableError`."""
        ...

    async def get(self, name: SampleName) -> bytes | None:
        """Read an image; None when it is not there. Or raise `StorageUnavailableError`."""
        ...

    async def delete(self, name: SampleName) -> None:
        """Remove an image; one that is gone already is no error. Or raise `StorageUnavailableError`."""
        ...

    async def names(self) -> Sequence[SampleName]:
        """Every image that is kept, or raise `StorageUnavailableError`."""
        ...


class Meter(Protocol):
    """Counts what the service does. Label values are bounded; no resource name is one."""

    def batch_answered(self, kind: PayloadKind, items: int, answer: BatchAnswer, round_trip_s: float) -> None:
        """A replica answered a batch."""
        ...

    def waited(self, seconds: float) -> None:
        """A request left the queue after so many seconds."""
        ...

    def dropped(self, reason: str) -> None:
        """A request was given up: `expired`, `queue_full`, `unavailable`, `no_room`."""
        ...

    def images_answered(self, kind: PayloadKind, count: int) -> None:
        """So many images have an answer."""
        ...

    def images_refused(self, count: int) -> None:
        """So many images could not be read."""
        ...

    def replica_failed(self) -> None:
        """A call to a replica failed."""
        ...

    def version_switched(self) -> None:
        """A deployment's traffic moved to another version."""
        ...

    def version_failed(self) -> None:
        """A target version could not be brought up, or may not be served."""
        ...

    def shadow_compared(self, task: Task, images: int, agreed: float) -> None:
        """A shadow's answers to so many images were compared; `agreed` is the sum of their agreements in [0, 1]."""
        ...

    def shadow_dropped(self, reason: str) -> None:
        """A copy for a shadow was given up: `queue_full`, `failed`."""
        ...

    def cache_looked_up(self, *, hit: bool) -> None:
        """An answer was looked for in a response cache."""
        ...

    def cached(self, size_bytes: int) -> None:
        """So many bytes of answers are kept."""
        ...

    def deployments(self, counts: Mapping[State, int]) -> None:
        """How many deployments there are in each state."""
        ...

    def pool_holds(self, models: int, held_bytes: int, budget_bytes: int, waiting: int) -> None:
        """What all replicas of the pool hold, may hold, and how many calls wait for models."""
        ...

    def pool_changed(self, loads: int, evictions: int) -> None:
        """So many more models were loaded by the pool, and made room for others."""
        ...

    def queued(self, items: int) -> None:
        """How many images wait now, more or fewer: a difference."""
        ...

    def confidence(self, task: Task, value: float) -> None:
        """An observed answer was so sure, in [0, 1]."""
        ...

    def drifted(self, worst: float, versions: int) -> None:
        """How far the farthest version has drifted, and how many have beyond the threshold."""
        ...

    def feedback(self, outcome: str) -> None:
        """Feedback was stored: `correct`, `wrong`, `unknown_label`."""
        ...

    def sample(self, outcome: str) -> None:
        """An image was kept, as `uncertain` or `drifted`; or was to be kept and `dropped`."""
        ...
