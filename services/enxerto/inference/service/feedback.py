"""Use cases of quality: what callers say about answers, and what is known of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from enxerto.inference.domain import (
    DeploymentQuality,
    Feedback,
    FeedbackRecord,
    PredictionId,
    SamplesUsage,
    VersionQuality,
)
from enxerto.inference.ports import DeploymentStore, Meter, ModelRegistry, QualityStore
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, VersionName

_REMEMBERED = 256


class Observations(Protocol):
    """What was seen of a deployment's answers."""

    def quality(self, name: DeploymentName) -> Sequence[VersionQuality]:
        """See `Observer.quality`."""
        ...


class Quality:
    """Takes feedback, and says how well a deployment answers."""

    def __init__(
        self,
        *,
        deployments: DeploymentStore,
        store: QualityStore,
        registry: ModelRegistry,
        observations: Observations,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._deployments = deployments
        self._store = store
        self._registry = registry
        self._observations = observations
        self._clock = clock
        self._meter = meter
        self._labels: dict[VersionName, tuple[str, ...]] = {}

    async def submit(self, name: DeploymentName, feedback: Sequence[Feedback]) -> Sequence[FeedbackRecord]:
        """Store true labels; what is returned is stored. Feedback for an image that has some takes its place.

        Raises:
            DeploymentNotFoundError: there is no such deployment.
            InvalidArgumentError: names every id that is not of this deployment, and every index beyond its images.
            VersionNotFoundError, RegistryUnavailableError: whether a label is known cannot be looked up.
        """
        await self._deployments.get(name)
        violations = Violations()
        records = {}
        for position, one in enumerate(feedback):
            found = PredictionId.parse(one.prediction_id, name)
            if found is None:
                violations.add(f"feedback[{position}].prediction_id", f"is not the id of an answer of {name}")
            elif not 0 <= one.index < len(found.classes):
                rule = f"must be in 0..{len(found.classes) - 1}, the images of that request"
                violations.add(f"feedback[{position}].image_index", rule)
            else:
                record = await self._record(name, found, one)
                records[record.identity, record.index] = record
        violations.raise_if_any()
        kept = list(records.values())
        await self._store.put_feedback(kept)
        for record in kept:
            self._meter.feedback("correct" if record.correct else "wrong" if record.known else "unknown_label")
        return kept

    async def read(self, name: DeploymentName, window: timedelta) -> DeploymentQuality:
        """How well a deployment answers; feedback counts for answers of so long ago.

        Raises:
            DeploymentNotFoundError: there is no such deployment.
        """
        deployment = await self._deployments.get(name)
        # What an earlier deployment of this name answered says nothing about this one.
        since = max(deployment.create_time, _before(self._clock.now(), window))
        accuracies = await self._store.accuracies(name, since)
        usage: SamplesUsage = await self._store.samples_usage(name)
        return DeploymentQuality(name, self._observations.quality(name), accuracies, usage.count, usage.size_bytes)

    async def _record(self, name: DeploymentName, found: PredictionId, said: Feedback) -> FeedbackRecord:
        labels = await self._labels_of(found.version)
        index = found.classes[said.index]
        predicted = labels[index] if index < len(labels) else ""
        return FeedbackRecord(
            name, found.identity, said.index, found.version, predicted, said.label, said.label in labels, found.time
        )

    async def _labels_of(self, version: VersionName) -> tuple[str, ...]:
        labels = self._labels.get(version)
        if labels is None:
            labels = await self._registry.labels(version)
            if len(self._labels) >= _REMEMBERED:
                self._labels.clear()
            self._labels[version] = labels
        return labels


def _before(now: datetime, window: timedelta) -> datetime:
    try:
        return now - window
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)
