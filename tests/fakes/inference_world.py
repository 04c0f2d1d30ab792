"""The world of the inference service in memory: store, registry, cluster, replicas. Each keeps its port's contract."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from enxerto.inference.adapters.registry_client import servable
from enxerto.inference.adapters.replica_client import answer_from_proto, predict_request
from enxerto.inference.domain import (
    Application,
    ApplicationState,
    ApplicationStatus,
    BatchAnswer,
    Deployment,
    Endpoint,
    ItemRefusal,
    Meaning,
    Occupancy,
    Payload,
    PayloadKind,
    Pool,
    ServableVersion,
    State,
    Tensor,
)
from enxerto.inference.errors import (
    DeploymentChangedError,
    DeploymentExistsError,
    DeploymentNotFoundError,
    ReplicasUnavailableError,
    RequestIdReusedError,
    StorageUnavailableError,
    VersionNotFoundError,
    VersionNotServableError,
)
from enxerto.inference.replica.messages import answer_form, response, tensor_arguments
from enxerto.inference.replica.predictor import Predictor
from enxerto.inference.v1 import replica_service_pb2 as pb
from enxerto.kernel.errors import EnxertoError, UnavailableError
from enxerto.kernel.names import DeploymentName, ProjectName, VersionName, VersionReference
from enxerto.kernel.paging import Page, PageRequest
from enxerto.type.v1 import task_pb2
from enxerto.vision.embeddings import EmbeddingReference
from enxerto.vision.images import ImageLimits
from enxerto.vision.onnx.golden import Golden
from enxerto.vision.specs import Task, TensorSpec
from fakes.tiny_onnx import TinyModel

LABELS = ("cat", "dog", "fish")
BAD_IMAGE = b"bad"
OUTPUT = TensorSpec("probabilities", "FP32", (-1, len(LABELS)))


def golden(number: int, side: int = 2) -> Golden:
    """Two images; `InMemoryReplicas` give every class of a tensor the version's number."""
    answers = np.full((2, len(LABELS)), number, np.float32)
    return Golden(Task.CLASSIFICATION, np.zeros((2, 3, side, side), np.uint8), {"probabilities": answers})


class InMemoryDeploymentStore:
    """A `DeploymentStore` in a dictionary."""

    def __init__(self) -> None:
        self._rows: dict[DeploymentName, Deployment] = {}
        self._requests: dict[tuple[str, str], tuple[object, DeploymentName]] = {}
        self._facts: dict[DeploymentName, dict[VersionName, ServableVersion]] = {}
        self.before_replace: Callable[[], Awaitable[object]] | None = None
        self.away = False

    async def create(self, deployment: Deployment, request_id: str) -> Deployment:
        self._check()
        key, said = (deployment.name.project, request_id), (deployment.name, deployment.spec)
        if request_id and key in self._requests:
            before, name = self._requests[key]
            if before != said:
                raise RequestIdReusedError(deployment.name)
            return self._rows[name]
        if deployment.name in self._rows:
            raise DeploymentExistsError(deployment.name)
        self._rows[deployment.name] = deployment
        if request_id:
            self._requests[key] = (said, deployment.name)
        return deployment

    async def get(self, name: DeploymentName) -> Deployment:
        self._check()
        if name not in self._rows:
            raise DeploymentNotFoundError(name)
        return self._rows[name]

    async def list(self, parent: ProjectName, page: PageRequest) -> Page[Deployment]:
        self._check()
        names = sorted(n for n in self._rows if n.project == parent.project and n.deployment > page.after)
        items = [self._rows[name] for name in names[: page.size]]
        return Page(items, items[-1].name.deployment if len(names) > page.size else "")

    async def all(self) -> Sequence[Deployment]:
        self._check()
        return [self._rows[name] for name in sorted(self._rows)]

    async def replace(self, deployment: Deployment) -> Deployment:
        if (interference := self.before_replace) is not None:
            self.before_replace = None
            await interference()
        if (await self.get(deployment.name)).revision != deployment.revision:
            raise DeploymentChangedError(deployment.name)
        self._rows[deployment.name] = dataclasses.replace(deployment, revision=deployment.revision + 1)
        return self._rows[deployment.name]

    async def keep_facts(self, name: DeploymentName, versions: Collection[ServableVersion]) -> None:
        self._check()
        self._facts[name] = {version.name: version for version in versions}

    async def facts(self, name: DeploymentName, version: VersionName) -> ServableVersion | None:
        self._check()
        return self._facts.get(name, {}).get(version)

    async def remove(self, name: DeploymentName) -> None:
        self._check()
        self._rows.pop(name, None)
        self._facts.pop(name, None)
        self._requests = {key: value for key, value in self._requests.items() if value[1] != name}

    def _check(self) -> None:
        if self.away:
            raise StorageUnavailableError("the database is away")


class InMemoryModelRegistry:
    """A `ModelRegistry` that tests write to."""

    def __init__(self) -> None:
        self.versions: dict[VersionName, ServableVersion] = {}
        self.quarantined: set[VersionName] = set()
        self.aliases: dict[VersionReference, VersionName] = {}
        self.goldens: dict[VersionName, Golden] = {}
        self.references: dict[VersionName, EmbeddingReference] = {}
        self.calls: Counter[str] = Counter()
        self.unreadable: set[VersionName] = set()
        """Versions whose facts cannot be read at the moment."""
        self.garbled: set[VersionName] = set()
        """Versions whose facts nobody foresaw."""
        self.away = False

    async def golden(self, version: ServableVersion) -> Golden | None:
        if self.away:
            raise UnavailableError("the registry is away")
        return self.goldens.get(version.name)

    def add(self, number: int, model: str = "pets") -> VersionName:
        name = VersionName("default", model, number)
        self.versions[name] = ServableVersion(name, Task.CLASSIFICATION, LABELS, 2, 2, (OUTPUT,))
        return name

    def add_tiny(self, number: int, tiny: TinyModel, model: str) -> VersionName:
        """A version as the real client of the registry reads it."""
        name = VersionName("default", model, number)
        message = tiny.version("0" * 64)
        message.name, message.state = str(name), message.STATE_READY
        message.task = task_pb2.Task.Value(f"TASK_{tiny.task.value}")
        self.versions[name] = servable(message)
        return name

    def point(self, alias: str, version: VersionName) -> VersionReference:
        reference = VersionReference(version.project, version.model, alias)
        self.aliases[reference] = version
        return reference

    async def labels(self, name: VersionName) -> tuple[str, ...]:
        if self.away:
            raise UnavailableError("the registry is away")
        if name not in self.versions:
            raise VersionNotFoundError(str(name))
        return self.versions[name].labels

    async def embedding_reference(self, name: VersionName) -> EmbeddingReference | None:
        if self.away:
            raise UnavailableError("the registry is away")
        return self.references.get(name)

    async def meanings(self, references: Collection[VersionReference]) -> Mapping[VersionReference, Meaning]:
        self.calls["meanings"] += 1
        if self.away:
            raise UnavailableError("the registry is away")
        meant = {reference: self._meant(reference) for reference in references}
        return {
            reference: Meaning(name, name not in self.quarantined)
            for reference, name in meant.items()
            if name in self.versions
        }

    async def resolve(self, reference: VersionReference) -> ServableVersion:
        self.calls["resolve"] += 1
        if self.away:
            raise UnavailableError("the registry is away")
        name = self._meant(reference)
        if name in self.unreadable:
            raise UnavailableError("the registry is away")
        if name in self.garbled:
            raise KeyError("layout")
        if name not in self.versions:
            raise VersionNotFoundError(str(reference))
        if name in self.quarantined:
            raise VersionNotServableError(name, "is QUARANTINED")
        return self.versions[name]

    def _meant(self, reference: VersionReference) -> VersionName | None:
        if reference.number:
            return VersionName(reference.project, reference.model, reference.number)
        return self.aliases.get(reference)


class InMemoryCluster:
    """A `ReplicaCluster` whose applications come up when a test says so, or at once."""

    def __init__(self) -> None:
        self.running: dict[str, Application | Pool] = {}
        self.states: dict[str, ApplicationStatus] = {}
        self.broken: set[VersionName] = set()
        self.slow: set[VersionName] = set()
        self.silent: set[VersionName] = set()
        self.applied: list[frozenset[str]] = []
        self.targets: dict[str, int] = {}
        """How many replicas an application is to have; the load may change it."""
        self.room: dict[VersionName, int] = {}
        """No more replicas of a version come up for now."""
        self.unstartable: set[str] = set()
        """Applications whose starts fail now. As Serve does it, they have then failed until they are declared anew."""
        self.given_up: set[str] = set()
        self.away = False

    async def apply(self, applications: Sequence[Application | Pool]) -> None:
        self._check()
        before, self.running = self.running, {application.name: application for application in applications}
        self.targets = {name: self._target(before.get(name), now) for name, now in self.running.items()}
        self.given_up &= self.running.keys()
        self.given_up |= self.unstartable & (self.running.keys() - before.keys())
        self.applied.append(frozenset(self.running))

    async def observe(self) -> Mapping[str, ApplicationStatus]:
        self._check()
        return {name: self._status(application) for name, application in self.running.items()}

    def _target(self, before: Application | Pool | None, now: Application | Pool) -> int:
        """As Serve does it: a change of the bounds leaves as many replicas as there are."""
        bounds = now.scale.autoscaling
        if bounds is None:
            return now.scale.replicas
        there = self.targets[now.name] if before is not None else 0
        return min(max(there, bounds.min_replicas), bounds.max_replicas)

    def forget(self) -> None:
        """What a restart of Ray does."""
        self.running, self.given_up = {}, set()

    def _check(self) -> None:
        if self.away:
            raise UnavailableError("the cluster is away")

    def _status(self, application: Application | Pool) -> ApplicationStatus:
        version = None if isinstance(application, Pool) else application.version
        if application.name in self.given_up:
            return ApplicationStatus(ApplicationState.FAILED, (), "out of disk")
        if version in self.broken:
            return ApplicationStatus(ApplicationState.FAILED, (), "out of luck")
        if version in self.silent:
            return ApplicationStatus(ApplicationState.STARTING, known=False)
        if version in self.slow:
            return ApplicationStatus(ApplicationState.STARTING)
        count = self.targets[application.name]
        if version is not None:
            count = min(count, self.room.get(version, count))
        ends = tuple(Endpoint(f"{application.name}:{n}", application.name) for n in range(count))
        return ApplicationStatus(ApplicationState.RUNNING, ends, running=len(ends))


class InMemoryReplicas:
    """`Replicas` that answer by the number of the version; `BAD_IMAGE` is refused."""

    def __init__(self) -> None:
        self.calls: list[tuple[Endpoint, VersionName, tuple[int, ...]]] = []
        self.dead: set[str] = set()
        self.stuck: set[VersionName | str] = set()
        """Versions and addresses that do not answer in time."""
        self.wrong: set[str] = set()
        """Addresses whose answers are another version's."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.kept: frozenset[Endpoint] = frozenset()
        self.arranged: dict[Endpoint, tuple[frozenset[VersionName], frozenset[VersionName]]] = {}
        self.occupancies: dict[Endpoint, Occupancy] = {}
        self.refusals: dict[VersionName, EnxertoError] = {}
        """What replicas of the pool say instead of an answer."""
        self.padding = 0
        """Bytes that each answer to an encoded image holds besides."""

    async def arrange(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy:
        if endpoint.address in self.dead:
            raise ReplicasUnavailableError("connection refused")
        self.arranged[endpoint] = frozenset(versions), frozenset(pinned)
        return self.occupancies.get(endpoint, Occupancy(0, 0, 0, 0, 0, 0))

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        self.calls.append((endpoint, version, tuple(payload.items for payload in payloads)))
        if endpoint.address in self.dead:
            # Other calls go on meanwhile.
            await asyncio.sleep(0)
            raise ReplicasUnavailableError("connection refused")
        if (refusal := self.refusals.get(version)) is not None:
            raise refusal
        try:
            stuck = version in self.stuck or endpoint.address in self.stuck
            await asyncio.wait_for(asyncio.Event().wait() if stuck else self.gate.wait(), timeout_s)
        except TimeoutError as error:
            raise ReplicasUnavailableError("DEADLINE_EXCEEDED") from error
        parts = [part for payload in payloads for part in payload.parts]
        encoded = payloads[0].kind is PayloadKind.ENCODED
        bad = [index for index, part in enumerate(parts) if encoded and part == BAD_IMAGE]
        rows = sum(payload.items for payload in payloads) - len(bad)
        number = version.number + (endpoint.address in self.wrong)
        answer = np.full((rows, len(LABELS)), float(number), np.float32)
        if encoded:
            # Each row says which image it answers, so that a mix-up shows.
            answer[:, 1] = [len(part) for index, part in enumerate(parts) if index not in bad]
        refusals = tuple(ItemRefusal(index, "CORRUPT_IMAGE", "the image is damaged") for index in bad)
        tensors = [Tensor(OUTPUT.name, "FP32", (len(LABELS),), answer.tobytes())]
        if encoded and self.padding:
            tensors.append(Tensor("padding", "UINT8", (self.padding,), bytes(rows * self.padding)))
        return BatchAnswer(tuple(tensors), (), refusals, 0.001, 0.002)

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        self.kept = endpoints


class InProcessReplicas:
    """`Replicas` that are predictors of this process; what they say crosses the wire's format."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._predictors: dict[VersionName, Predictor] = {}
        self.batches: list[int] = []
        self.outputs: list[tuple[str, ...]] = []
        """What each answer held."""

    def load(self, version: VersionName, tiny: TinyModel) -> None:
        path = self._folder / f"{version.model}.onnx"
        path.write_bytes(tiny.data)
        self._predictors[version] = Predictor(path, 2, ImageLimits(10**6, 10**6))

    async def predict(
        self, endpoint: Endpoint, version: VersionName, payloads: Sequence[Payload], timeout_s: float
    ) -> BatchAnswer:
        request = pb.PredictRequest.FromString(predict_request(version, payloads).SerializeToString())
        self.batches.append(sum(payload.items for payload in payloads))
        answer = await asyncio.to_thread(self._answer, self._predictors[version], request)
        self.outputs.append(tuple(tensor.name for tensor in answer.tensors))
        return answer_from_proto(pb.PredictResponse.FromString(response(answer).SerializeToString()))

    def _answer(self, predictor: Predictor, request: pb.PredictRequest) -> BatchAnswer:
        if request.WhichOneof("batch") == "encoded":
            return predictor.encoded(request.encoded.contents, answer_form(request.encoded), request.outputs)
        return predictor.tensor(*tensor_arguments(request.tensor), names=request.outputs)

    async def arrange(
        self, endpoint: Endpoint, versions: Collection[VersionName], pinned: Collection[VersionName]
    ) -> Occupancy:
        raise ReplicasUnavailableError("none of these is shared")

    async def keep(self, endpoints: frozenset[Endpoint]) -> None:
        """Nothing is open."""


class CountingMeter:
    """A `Meter` that tests read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.batches: list[int] = []
        self.states: dict[State, int] = {}
        self.waiting = 0
        self.cached_bytes = 0
        self.confidences: list[tuple[Task, float]] = []
        self.drift = 0.0, 0
        self.pool = 0, 0, 0, 0

    def batch_answered(self, kind: PayloadKind, items: int, answer: BatchAnswer, round_trip_s: float) -> None:
        self.batches.append(items)

    def waited(self, seconds: float) -> None:
        self.counts["waited"] += 1

    def dropped(self, reason: str) -> None:
        self.counts[reason] += 1

    def images_answered(self, kind: PayloadKind, count: int) -> None:
        self.counts["answered"] += count

    def images_refused(self, count: int) -> None:
        self.counts["refused"] += count

    def replica_failed(self) -> None:
        self.counts["replica_failed"] += 1

    def version_switched(self) -> None:
        self.counts["switched"] += 1

    def version_failed(self) -> None:
        self.counts["failed"] += 1

    def shadow_compared(self, task: Task, images: int, agreed: float) -> None:
        self.counts["shadow_images"] += images

    def shadow_dropped(self, reason: str) -> None:
        self.counts[f"shadow_{reason}"] += 1

    def cache_looked_up(self, *, hit: bool) -> None:
        self.counts["cache hit" if hit else "cache miss"] += 1

    def cached(self, size_bytes: int) -> None:
        self.cached_bytes = size_bytes

    def deployments(self, counts: Mapping[State, int]) -> None:
        self.states = {state: count for state, count in counts.items() if count}

    def pool_holds(self, models: int, held_bytes: int, budget_bytes: int, waiting: int) -> None:
        self.pool = models, held_bytes, budget_bytes, waiting

    def pool_changed(self, loads: int, evictions: int) -> None:
        self.counts["pool_loads"] += loads
        self.counts["pool_evictions"] += evictions

    def queued(self, items: int) -> None:
        self.waiting += items

    def confidence(self, task: Task, value: float) -> None:
        self.confidences.append((task, value))

    def drifted(self, worst: float, versions: int) -> None:
        self.drift = worst, versions

    def feedback(self, outcome: str) -> None:
        self.counts[f"feedback {outcome}"] += 1

    def sample(self, outcome: str) -> None:
        self.counts[f"sample {outcome}"] += 1
