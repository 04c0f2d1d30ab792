"""Prometheus metrics of the training domain. Labels hold states only."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from enxerto.training.domain import RunState, SnapshotState

_RUN_BUCKETS = (10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)
_IMPORT_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800)
_LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class PrometheusTelemetry:
    """A `Telemetry` that Prometheus scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Gauge("enxerto_training_runs", "Training runs by state.", ["state"], registry=registry)
        self._run_seconds = Histogram(
            "enxerto_training_run_seconds",
            "From a run's creation to its final state.",
            ["state"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self._images = Counter(
            "enxerto_training_images", "Images that went through a network in training.", registry=registry
        )
        self._imports = Histogram(
            "enxerto_training_import_seconds",
            "Duration of snapshot imports, by outcome.",
            ["state"],
            buckets=_IMPORT_BUCKETS,
            registry=registry,
        )
        self._snapshots = Counter(
            "enxerto_training_snapshots_imported", "Snapshot imports that ended.", ["state"], registry=registry
        )
        self._lag = Histogram(
            "enxerto_training_event_lag_seconds",
            "Age of a job's event when watchers could see it.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self._queue = Gauge("enxerto_training_queue_length", "Runs that wait for the cluster.", registry=registry)
        self._waits = Histogram(
            "enxerto_training_queue_seconds",
            "From a run's creation, or from its resumption, to its job's submission.",
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        for state in RunState:
            self._runs.labels(state.value)
        for outcome in (SnapshotState.READY, SnapshotState.FAILED):
            self._snapshots.labels(outcome.value)

    def runs_by_state(self, counts: Mapping[RunState, int]) -> None:
        """How many runs are in each state now."""
        for state in RunState:
            self._runs.labels(state.value).set(counts.get(state, 0))

    def run_ended(self, state: RunState, duration_s: float) -> None:
        """A run reached a final state."""
        self._run_seconds.labels(state.value).observe(duration_s)

    def images_trained(self, count: int) -> None:
        """Images went through a network."""
        self._images.inc(count)

    def snapshot_imported(self, state: SnapshotState, duration_s: float) -> None:
        """An import ended."""
        self._snapshots.labels(state.value).inc()
        self._imports.labels(state.value).observe(duration_s)

    def queue_length(self, count: int) -> None:
        """How many runs wait for the cluster."""
        self._queue.set(count)

    def run_waited(self, seconds: float) -> None:
        """A run was submitted so long after it was created or resumed."""
        self._waits.observe(max(seconds, 0.0))

    def event_lag(self, seconds: float) -> None:
        """How old an event of a job was when watchers could see it."""
        self._lag.observe(max(seconds, 0.0))
