"""The service's own metrics, for Prometheus. Label values come from closed sets."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from enxerto.inference.domain import BatchAnswer, PayloadKind, State
from enxerto.vision.specs import Task

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_PREFIX = "enxerto_inference"


class PrometheusMeter:
    """Counts into one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", text, labels, registry=registry)

        batch_images = histogram("batch_images", "Images in a call to a replica.", _SIZES, "kind")
        self._queue = histogram("queue_seconds", "From arrival until a call to a replica starts.", _SECONDS)
        self._decode = histogram("decode_seconds", "Decoding and resizing one batch.", _SECONDS)
        compute = histogram("compute_seconds", "One batch in the network.", _SECONDS, "kind")
        self._encode = histogram("encode_seconds", "Turning one batch's outputs into answers.", _SECONDS)
        self._round_trip = histogram("replica_call_seconds", "A call to a replica, as the front sees it.", _SECONDS)
        images = counter("images", "Images that got an answer.", "kind")
        self._refused = counter("images_refused", "Images that could not be read.")
        self._dropped = counter("requests_dropped", "Requests given up before an answer.", "reason")
        self._replica_failures = counter("replica_failures", "Calls to replicas that failed.")
        self._switches = counter("version_switches", "Moves of a deployment's traffic to another version.")
        self._failures = counter(
            "version_failures", "Target versions that could not be brought up or may not be served."
        )
        self._compared = counter("shadow_images", "Images whose answers by a shadow were compared.", "task")
        self._agreed = counter("shadow_agreement", "Sum of those images' agreements, each in [0, 1].", "task")
        self._shadow_dropped = counter("shadow_requests_dropped", "Copies for shadows that were given up.", "reason")
        self._lookups = counter("cache_lookups", "Requests looked for in a response cache.", "outcome")
        self._cached = Gauge(f"{_PREFIX}_cached_bytes", "Answers kept in response caches.", registry=registry)
        self._deployments = Gauge(f"{_PREFIX}_deployments", "Deployments by state.", ("state",), registry=registry)
        self._pool = {
            name: Gauge(f"{_PREFIX}_pool_{name}", text, registry=registry)
            for name, text in (
                ("models", "Models that shared replicas hold."),
                ("held_bytes", "Memory of those models, as measured when each was loaded."),
                ("budget_bytes", "Memory that models of shared replicas may take."),
                ("waiting_calls", "Calls to shared replicas that wait for a model."),
            )
        }
        self._pool_loads = counter("pool_loads", "Models that shared replicas have loaded.")
        self._pool_evictions = counter("pool_evictions", "Models that made room for others in shared replicas.")
        self._queued = Gauge(f"{_PREFIX}_queued_images", "Images that wait for a call.", registry=registry)
        self._confidence = histogram("confidence", "How sure observed answers were.", _CONFIDENCES, "task")
        self._drift = Gauge(
            f"{_PREFIX}_embedding_drift", "Drift of the version that has drifted farthest.", registry=registry
        )
        self._drifted = Gauge(f"{_PREFIX}_drifted_versions", "Versions beyond the threshold.", registry=registry)
        self._feedback = counter("feedback", "Answers whose true label was told.", "outcome")
        self._samples = counter("samples", "Images kept for labelling, or dropped.", "outcome")
        for task in Task:
            if task is not Task.STYLE:
                self._confidence.labels(task.value)
        for outcome in ("correct", "wrong", "unknown_label"):
            self._feedback.labels(outcome)
        for outcome in ("uncertain", "drifted", "dropped"):
            self._samples.labels(outcome)
        for reason in ("expired", "queue_full", "unavailable", "no_room"):
            self._dropped.labels(reason)
        for reason in ("queue_full", "failed"):
            self._shadow_dropped.labels(reason)
        for outcome in ("hit", "miss"):
            self._lookups.labels(outcome)
        # Counted in every call, and finding one takes longer than counting.
        self._images_of = {kind: images.labels(kind.value) for kind in PayloadKind}
        self._batch_images_of = {kind: batch_images.labels(kind.value) for kind in PayloadKind}
        self._compute_of = {kind: compute.labels(kind.value) for kind in PayloadKind}
        for state in State:
            self._deployments.labels(state.value)

    def batch_answered(self, kind: PayloadKind, items: int, answer: BatchAnswer, round_trip_s: float) -> None:
        """A replica answered a batch."""
        self._batch_images_of[kind].observe(items)
        if kind is PayloadKind.ENCODED:
            self._decode.observe(answer.decode_s)
            self._encode.observe(answer.encode_s)
        self._compute_of[kind].observe(answer.compute_s)
        self._round_trip.observe(round_trip_s)

    def waited(self, seconds: float) -> None:
        """A request left the queue."""
        self._queue.observe(seconds)

    def dropped(self, reason: str) -> None:
        """A request was given up."""
        self._dropped.labels(reason).inc()

    def images_answered(self, kind: PayloadKind, count: int) -> None:
        """Images have an answer."""
        self._images_of[kind].inc(count)

    def images_refused(self, count: int) -> None:
        """Images could not be read."""
        self._refused.inc(count)

    def replica_failed(self) -> None:
        """A call to a replica failed."""
        self._replica_failures.inc()

    def version_switched(self) -> None:
        """Traffic moved to another version."""
        self._switches.inc()

    def version_failed(self) -> None:
        """A target version could not be brought up."""
        self._failures.inc()

    def shadow_compared(self, task: Task, images: int, agreed: float) -> None:
        """A shadow's answers were compared."""
        self._compared.labels(task.value).inc(images)
        self._agreed.labels(task.value).inc(agreed)

    def shadow_dropped(self, reason: str) -> None:
        """A copy for a shadow was given up."""
        self._shadow_dropped.labels(reason).inc()

    def cache_looked_up(self, *, hit: bool) -> None:
        """An answer was looked for."""
        self._lookups.labels("hit" if hit else "miss").inc()

    def cached(self, size_bytes: int) -> None:
        """Answers are kept."""
        self._cached.set(size_bytes)

    def deployments(self, counts: Mapping[State, int]) -> None:
        """Deployments in each state."""
        for state, count in counts.items():
            self._deployments.labels(state.value).set(count)

    def pool_holds(self, models: int, held_bytes: int, budget_bytes: int, waiting: int) -> None:
        """What the pool holds."""
        found = {"models": models, "held_bytes": held_bytes, "budget_bytes": budget_bytes, "waiting_calls": waiting}
        for name, value in found.items():
            self._pool[name].set(value)

    def pool_changed(self, loads: int, evictions: int) -> None:
        """Models came and went."""
        self._pool_loads.inc(loads)
        self._pool_evictions.inc(evictions)

    def queued(self, items: int) -> None:
        """Images wait, more or fewer."""
        self._queued.inc(items)

    def confidence(self, task: Task, value: float) -> None:
        """An answer was so sure."""
        self._confidence.labels(task.value).observe(value)

    def drifted(self, worst: float, versions: int) -> None:
        """How far, and how many versions."""
        self._drift.set(worst)
        self._drifted.set(versions)

    def feedback(self, outcome: str) -> None:
        """Feedback was stored."""
        self._feedback.labels(outcome).inc()

    def sample(self, outcome: str) -> None:
        """An image was kept or dropped."""
        self._samples.labels(outcome).inc()
