"""In-memory twins of the training service's ports."""

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from enxerto.kernel.errors import AlreadyExistsError, DataLossError, NotFoundError, UnavailableError
from enxerto.kernel.names import DatasetName, ModelName, ProjectName, RunName, SnapshotName, SweepName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.training.domain import (
    ClusterSize,
    Dataset,
    EventBody,
    Inquiry,
    JobBody,
    JobEvent,
    RunEvent,
    RunState,
    Snapshot,
    SnapshotContent,
    SnapshotState,
    Source,
    Sweep,
    TrainingResult,
    TrainingRun,
)
from enxerto.training.errors import RequestIdReusedError, StaleRevisionError
from enxerto.training.ports import Idempotency, ImportedWeights, JobState, Registered
from enxerto.vision.specs import Task

START = datetime(2026, 1, 1, tzinfo=UTC)


class SteppingClock:
    """A clock that moves by a second with every look."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


class _Requests:
    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[str, object]] = {}

    def find(self, scope: str, request: Idempotency | None) -> object | None:
        if request is None or (scope, request.request_id) not in self._seen:
            return None
        fingerprint, resource = self._seen[scope, request.request_id]
        if fingerprint != request.fingerprint:
            raise RequestIdReusedError(request.request_id)
        return resource

    def remember(self, scope: str, request: Idempotency | None, resource: object) -> None:
        if request is not None:
            self._seen[scope, request.request_id] = (request.fingerprint, resource)


class InMemoryDatasetStore:
    """A `DatasetStore`."""

    def __init__(self) -> None:
        self._datasets: dict[DatasetName, Dataset] = {}
        self._snapshots: dict[SnapshotName, Snapshot] = {}
        self._requests = _Requests()

    async def create_dataset(self, dataset: Dataset, request: Idempotency | None = None) -> Dataset:
        scope = f"datasets:{dataset.name.project}"
        if existing := self._requests.find(scope, request):
            assert isinstance(existing, DatasetName)
            return self._datasets[existing]
        if dataset.name in self._datasets:
            raise AlreadyExistsError("Dataset", str(dataset.name))
        self._datasets[dataset.name] = dataset
        self._requests.remember(scope, request, dataset.name)
        return dataset

    async def get_dataset(self, name: DatasetName) -> Dataset:
        if name not in self._datasets:
            raise NotFoundError("Dataset", str(name))
        return self._datasets[name]

    async def list_datasets(self, parent: ProjectName, page: PageRequest) -> Page[Dataset]:
        names = sorted(name for name in self._datasets if name.parent == parent and name.dataset > page.after)
        items = [self._datasets[name] for name in names[: page.size]]
        return Page(items, items[-1].name.dataset if len(names) > page.size else "")

    async def create_snapshot(
        self, parent: DatasetName, source: Source, split_seed: int, now: datetime, request: Idempotency | None = None
    ) -> Snapshot:
        await self.get_dataset(parent)
        scope = f"snapshots:{parent.project}"
        if existing := self._requests.find(scope, request):
            assert isinstance(existing, SnapshotName)
            return self._snapshots[existing]
        number = sum((name.project, name.dataset) == (parent.project, parent.dataset) for name in self._snapshots) + 1
        name = SnapshotName(parent.project, parent.dataset, number)
        snapshot = Snapshot(name=name, source=source, split_seed=split_seed, create_time=now, update_time=now)
        self._snapshots[name] = snapshot
        self._requests.remember(scope, request, name)
        return snapshot

    async def find_snapshot(self, parent: DatasetName, request: Idempotency) -> Snapshot | None:
        existing = self._requests.find(f"snapshots:{parent.project}", request)
        assert existing is None or isinstance(existing, SnapshotName)
        return self._snapshots[existing] if existing else None

    async def get_snapshot(self, name: SnapshotName) -> Snapshot:
        if name not in self._snapshots:
            raise NotFoundError("Snapshot", str(name))
        return self._snapshots[name]

    async def list_snapshots(self, parent: DatasetName, page: PageRequest) -> Page[Snapshot]:
        await self.get_dataset(parent)
        before = int(page.after) if page.after else 10**18
        names = sorted(
            (name for name in self._snapshots if name.parent == parent and name.number < before), reverse=True
        )
        items = [self._snapshots[name] for name in names[: page.size]]
        keys = [str(item.name.number) for item in items]
        return Page(items, keys[-1] if len(names) > page.size else "", keys)

    async def list_importing(self) -> Sequence[Snapshot]:
        return [one for one in self._snapshots.values() if one.state is SnapshotState.IMPORTING]

    async def save_snapshot(self, snapshot: Snapshot) -> Snapshot:
        if self._snapshots[snapshot.name].revision != snapshot.revision:
            raise StaleRevisionError(snapshot.name)
        saved = replace(snapshot, revision=snapshot.revision + 1)
        self._snapshots[snapshot.name] = saved
        dataset = self._datasets[snapshot.name.parent]
        if snapshot.state is SnapshotState.READY and (dataset.latest_ready or 0) < snapshot.name.number:
            self._datasets[dataset.name] = replace(
                dataset,
                latest_ready=snapshot.name.number,
                update_time=snapshot.update_time,
                revision=dataset.revision + 1,
            )
        return saved


class InMemoryRunStore:
    """A `RunStore`."""

    def __init__(self) -> None:
        self._runs: dict[RunName, TrainingRun] = {}
        self._events: dict[str, list[RunEvent]] = {}
        self._deleted_logs: set[str] = set()
        self._requests = _Requests()

    async def create(self, run: TrainingRun, request: Idempotency | None = None) -> TrainingRun:
        scope = f"runs:{run.name.project}"
        if existing := self._requests.find(scope, request):
            assert isinstance(existing, RunName)
            return self._runs[existing]
        if run.name in self._runs:
            raise AlreadyExistsError("TrainingRun", str(run.name))
        self._runs[run.name] = run
        self._events[run.uid] = []
        self._append(run.uid, [(run.create_time, run.state_event())])
        self._requests.remember(scope, request, run.name)
        return run

    async def find_request(self, parent: ProjectName, request: Idempotency) -> TrainingRun | None:
        existing = self._requests.find(f"runs:{parent.project}", request)
        assert existing is None or isinstance(existing, RunName)
        return self._runs[existing] if existing else None

    async def get(self, name: RunName) -> TrainingRun:
        if name not in self._runs:
            raise NotFoundError("TrainingRun", str(name))
        return self._runs[name]

    async def list_runs(self, parent: ProjectName, page: PageRequest) -> Page[TrainingRun]:
        rows = list(enumerate(self._runs.values(), start=1))[::-1]
        before = int(page.after) if page.after else 10**18
        found = [(row, run) for row, run in rows if run.name.parent == parent and row < before]
        chosen = found[: page.size]
        keys = [str(key) for key, _ in chosen]
        return Page([run for _, run in chosen], keys[-1] if len(found) > page.size else "", keys)

    async def list_active(self) -> Sequence[TrainingRun]:
        return [run for run in self._runs.values() if not run.state.final]

    async def save(self, run: TrainingRun, events: Sequence[tuple[datetime, EventBody]] = ()) -> TrainingRun:
        if self._runs[run.name].revision != run.revision:
            raise StaleRevisionError(run.name)
        saved = replace(run, revision=run.revision + 1)
        self._runs[run.name] = saved
        self._append(run.uid, events)
        return saved

    def _append(self, uid: str, events: Sequence[tuple[datetime, EventBody]]) -> None:
        known = self._events[uid]
        for time, body in events:
            known.append(RunEvent(len(known) + 1, time, body))

    async def list_events(self, uid: str, after_cursor: int, limit: int) -> Sequence[RunEvent]:
        return self._events[uid][after_cursor : after_cursor + limit]

    async def list_kept_logs(self, ended_before: datetime, limit: int) -> Sequence[str]:
        ended = [run for run in self._runs.values() if run.state.final and run.end_time and run.end_time < ended_before]
        return [run.uid for run in ended if run.uid not in self._deleted_logs][:limit]

    async def note_deleted_log(self, uid: str) -> None:
        self._deleted_logs.add(uid)

    async def count_by_state(self) -> Mapping[RunState, int]:
        counts: dict[RunState, int] = {}
        for run in self._runs.values():
            counts[run.state] = counts.get(run.state, 0) + 1
        return counts


class InMemorySweepStore:
    """A `SweepStore`."""

    def __init__(self) -> None:
        self._sweeps: dict[SweepName, Sweep] = {}
        self._requests = _Requests()

    async def create(self, sweep: Sweep, request: Idempotency | None = None) -> Sweep:
        scope = f"sweeps:{sweep.name.project}"
        if existing := self._requests.find(scope, request):
            assert isinstance(existing, SweepName)
            return self._sweeps[existing]
        if sweep.name in self._sweeps:
            raise AlreadyExistsError("Sweep", str(sweep.name))
        self._sweeps[sweep.name] = sweep
        self._requests.remember(scope, request, sweep.name)
        return sweep

    async def find_request(self, parent: ProjectName, request: Idempotency) -> Sweep | None:
        existing = self._requests.find(f"sweeps:{parent.project}", request)
        assert existing is None or isinstance(existing, SweepName)
        return self._sweeps[existing] if existing else None

    async def get(self, name: SweepName) -> Sweep:
        if name not in self._sweeps:
            raise NotFoundError("Sweep", str(name))
        return self._sweeps[name]

    async def list_sweeps(self, parent: ProjectName, page: PageRequest) -> Page[Sweep]:
        rows = list(enumerate(self._sweeps.values(), start=1))[::-1]
        before = int(page.after) if page.after else 10**18
        found = [(row, sweep) for row, sweep in rows if sweep.name.parent == parent and row < before]
        chosen = found[: page.size]
        return Page([sweep for _, sweep in chosen], str(chosen[-1][0]) if len(found) > page.size else "")

    async def list_active(self) -> Sequence[Sweep]:
        return [sweep for sweep in self._sweeps.values() if not sweep.state.final]

    async def save(self, sweep: Sweep) -> Sweep:
        if self._sweeps[sweep.name].revision != sweep.revision:
            raise StaleRevisionError(sweep.name)
        saved = replace(sweep, revision=sweep.revision + 1)
        self._sweeps[sweep.name] = saved
        return saved


class InMemoryWeights:
    """A `WeightsCatalogue` and a `WeightsVault`."""

    def __init__(self) -> None:
        self.known: dict[str, ImportedWeights] = {}
        self.blobs: dict[str, bytes] = {}
        self.published: dict[str, int] = {}

    async def put(self, weights: ImportedWeights) -> None:
        self.known[weights.base_model] = weights

    async def all(self) -> Mapping[str, ImportedWeights]:
        return dict(self.known)

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, bytes]:
        data = b"".join([chunk async for chunk in chunks])
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest, data

    async def publish(self, sha256: str, size_bytes: int) -> None:
        self.published[sha256] = size_bytes

    async def fetch(self, weights: ImportedWeights) -> None:
        if weights.sha256 not in self.published:
            raise DataLossError("the registry has lost the weights")
        self.blobs.setdefault(weights.sha256, b"from the registry")


class ScriptedCluster:
    """A `JobRunner` and a `JobOutput`: the test plays the job."""

    def __init__(self) -> None:
        self.cluster = ClusterSize(64.0, 0.0)
        self.own: frozenset[str] = frozenset()
        self.weights: dict[str, dict[str, str]] = {}
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.use_gpu: dict[str, bool | None] = {}
        self.inquiries: dict[str, Inquiry] = {}
        self.answers: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.jobs: dict[str, JobState] = {}
        self.submissions: list[str] = []
        self.stopped: list[str] = []
        self.logs: dict[tuple[str, int], list[JobEvent]] = {}
        self.results: dict[tuple[str, int], TrainingResult] = {}

    async def size(self, own: Collection[str]) -> ClusterSize:
        self.own = frozenset(own)
        return self.cluster

    async def submit(
        self, run: TrainingRun, content: SnapshotContent, weights: Mapping[str, str], warnings: Sequence[str]
    ) -> None:
        self.warnings[run.job_id] = tuple(warnings)
        self.use_gpu[run.job_id] = run.use_gpu
        self.weights[run.job_id] = dict(weights)
        self.submissions.append(run.job_id)
        self.jobs.setdefault(run.job_id, JobState.WAITING)

    async def ask(self, inquiry: Inquiry, attempt: int) -> None:
        self.inquiries[inquiry.job_id(attempt)] = inquiry
        self.submissions.append(inquiry.job_id(attempt))
        self.jobs.setdefault(inquiry.job_id(attempt), JobState.WAITING)

    async def state(self, job_id: str) -> tuple[JobState, str]:
        return self.jobs.get(job_id, JobState.UNKNOWN), "the cluster's word"

    async def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)
        if job_id in self.jobs and not self.jobs[job_id].over:
            self.jobs[job_id] = JobState.STOPPED

    def write(self, run: TrainingRun, *bodies: JobBody) -> None:
        """What the job of the run's attempt appends to its log."""
        log = self.logs.setdefault((run.uid, run.attempt), [])
        for body in bodies:
            log.append(JobEvent(len(log) + 1, START, body))

    async def read_events(self, uid: str, attempt: int, after_seq: int) -> Sequence[JobEvent]:
        return self.logs.get((uid, attempt), [])[after_seq:]

    async def read_result(self, uid: str, attempt: int) -> TrainingResult:
        if (uid, attempt) not in self.results:
            raise DataLossError("the result is missing")
        return self.results[uid, attempt]

    async def read_answer(self, uid: str, attempt: int) -> Mapping[str, Any] | None:
        return self.answers.get((uid, attempt))

    async def read_blob(self, sha256: str) -> AsyncIterator[bytes]:
        yield self.blobs[sha256]


class InMemoryRegistry:
    """A `Registry` that keeps one version per run."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.tasks: dict[ModelName, Task] = {}
        self.away = False
        self.calls = 0

    async def register(self, run: TrainingRun, result: TrainingResult) -> Registered:
        self.calls += 1
        version = self.versions.setdefault(run.uid, f"{run.spec.model}/versions/{len(self.versions) + 1}")
        return Registered(version, result.parity is not None and result.parity.agreement < 0.999)

    async def task_of(self, model: ModelName) -> Task | None:
        if self.away:
            raise UnavailableError("the registry is away")
        return self.tasks.get(model)


class CountingTelemetry:
    """A `Telemetry` that remembers."""

    def __init__(self) -> None:
        self.ended: list[RunState] = []
        self.imported: list[SnapshotState] = []
        self.images = 0
        self.queued = 0
        self.waits: list[float] = []

    def runs_by_state(self, counts: Mapping[RunState, int]) -> None:
        """Not looked at."""

    def run_ended(self, state: RunState, duration_s: float) -> None:
        self.ended.append(state)

    def images_trained(self, count: int) -> None:
        self.images += count

    def snapshot_imported(self, state: SnapshotState, duration_s: float) -> None:
        self.imported.append(state)

    def queue_length(self, count: int) -> None:
        self.queued = count

    def run_waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def event_lag(self, seconds: float) -> None:
        """Not looked at."""
