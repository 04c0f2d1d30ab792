"""Looks at a sample of the answers: which classes, how sure, and how far from what the network was trained on.

The sample is bounded in images a second for each version, so that looking costs the same under any load.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from enxerto.inference.domain import (
    CONFIDENCE_BINS,
    MAX_TRAFFIC_TARGETS,
    Payload,
    PictureAnswer,
    Prediction,
    ServableVersion,
    VersionQuality,
)
from enxerto.inference.ports import Meter, ModelRegistry
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import DeploymentName, VersionName
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.embeddings import EmbeddingReference, Embeddings, Moments, RunningMoments
from enxerto.vision.specs import Task

logger = logging.getLogger(__name__)

_WINDOW = 1000
_DRIFT_WINDOW = 250
_LEAST_DRIFT_IMAGES = 64
_VERSIONS = MAX_TRAFFIC_TARGETS + 2
"""Of a deployment: the main one, its canaries, and one that takes the place of another."""
_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class ObservationLimits:
    """How much is looked at, and what is called drift."""

    images_per_s: float = 20.0
    """Of each version; 0 observes nothing."""
    drift_threshold: float = 0.2
    """By how much the drift may exceed that of held-out images."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of one answered image."""

    index: int
    """Of the image in its request."""
    confidence: float
    label: str
    """The most likely class; empty for other tasks."""
    distance: float | None
    """See `EmbeddingReference.distances`."""


Keep = Callable[[DeploymentName, Payload, Prediction, Sequence[Observed]], None]
"""Told of every observed answer to encoded images."""


@dataclass(slots=True)
class _Watched:
    """What was seen of one version of one deployment."""

    version: ServableVersion
    tokens: float
    refilled: float
    images: int = 0
    seen: float = 0.0
    class_shares: Moments = field(default_factory=lambda: np.zeros(0))
    confidence_shares: Moments = field(default_factory=lambda: np.zeros(CONFIDENCE_BINS))
    moments: RunningMoments | None = None
    reference: EmbeddingReference | None = None
    fetched: float = -_RETRY_S

    def drift(self) -> float | None:
        if self.reference is None or self.moments is None or self.moments.count < _LEAST_DRIFT_IMAGES:
            return None
        return self.reference.drift(self.moments.mean, self.moments.variance)


class Observer:
    """Remembers the last answers of every version. Belongs to one event loop; nothing of it is stored."""

    def __init__(self, registry: ModelRegistry, meter: Meter, limits: ObservationLimits, keep: Keep) -> None:
        self._registry = registry
        self._meter = meter
        self._limits = limits
        self._keep = keep
        self._watched: dict[DeploymentName, dict[VersionName, _Watched]] = {}
        self._fetching: set[asyncio.Task[None]] = set()

    def wants(self, name: DeploymentName, version: ServableVersion, items: int) -> bool:
        """Whether the answer to a request of so many images is to be observed, in full."""
        rate = self._limits.images_per_s
        if not rate or version.task is Task.STYLE:
            return False
        now = time.monotonic()
        watched = self._find(name, version, now)
        # A large request may overdraw: the next ones wait until it is paid for.
        watched.tokens = min(self._most_tokens, watched.tokens + (now - watched.refilled) * rate)
        watched.refilled = now
        if watched.tokens < 1:
            return False
        watched.tokens -= items
        return True

    def observe(self, name: DeploymentName, payload: Payload, prediction: Prediction) -> None:
        """Take in an answer with all outputs."""
        watched = self._watched.get(name, {}).get(prediction.version.name)
        if watched is None:
            return
        confidences, classes = _answers(prediction)
        watched.images += prediction.items
        watched.seen = time.monotonic()
        for confidence in confidences:
            self._meter.confidence(prediction.version.task, confidence)
        bins = np.minimum((confidences * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
        # All count alike until there are more than the window holds; then the older fade.
        weight = max(prediction.items / watched.images, 1 - (1 - 1 / _WINDOW) ** prediction.items)
        _fade(watched.confidence_shares, bins, weight)
        if len(classes):
            _fade(watched.class_shares, classes, weight)
        distances = self._place(watched, prediction)
        labels = prediction.version.labels
        self._keep(
            name,
            payload,
            prediction,
            [
                Observed(
                    index,
                    float(confidence),
                    labels[int(classes[index])] if len(classes) else "",
                    None if distances is None else float(distances[index]),
                )
                for index, confidence in enumerate(confidences)
            ],
        )

    def quality(self, name: DeploymentName) -> list[VersionQuality]:
        """What was observed of the versions of a deployment, the last one first."""
        found = sorted(self._watched.get(name, {}).values(), key=lambda one: -one.seen)
        return [self._quality(one) for one in found if one.images]

    def report(self, answering: Mapping[DeploymentName, Collection[VersionName]]) -> None:
        """Tell the meter how far the farthest version has drifted, and how many have; forget what answers no more."""
        self._watched = {
            name: kept
            for name, versions in self._watched.items()
            if (kept := {one: versions[one] for one in versions if one in answering.get(name, ())})
        }
        watched = [one for versions in self._watched.values() for one in versions.values()]
        drifts = [drift for one in watched if (drift := one.drift()) is not None]
        self._meter.drifted(max(drifts, default=0.0), sum(self._has_drifted(one) for one in watched))

    @property
    def _most_tokens(self) -> float:
        """An image costs a whole one, however few there are in a second."""
        return max(1.0, self._limits.images_per_s)

    def _find(self, name: DeploymentName, version: ServableVersion, now: float) -> _Watched:
        versions = self._watched.setdefault(name, {})
        watched = versions.get(version.name)
        if watched is None:
            if len(versions) >= _VERSIONS:
                del versions[min(versions, key=lambda one: versions[one].seen)]
            shares = np.zeros(len(version.labels) if version.task is Task.CLASSIFICATION else 0)
            watched = _Watched(version, self._most_tokens, now, seen=now, class_shares=shares)
            if version.embedding_dimension is not None:
                watched.moments = RunningMoments(version.embedding_dimension, _DRIFT_WINDOW)
            versions[version.name] = watched
        if watched.moments is not None and watched.reference is None and now - watched.fetched >= _RETRY_S:
            watched.fetched = now
            task = asyncio.ensure_future(self._fetch(watched))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        return watched

    async def _fetch(self, watched: _Watched) -> None:
        name = watched.version.name
        try:
            watched.reference = await self._registry.embedding_reference(name)
        except EnxertoError as error:
            logger.warning("no reference for drift yet", extra={"version": str(name), "error": error.message})
            return
        if watched.reference is None:
            # Asking again would not help.
            watched.fetched = float("inf")
        elif len(watched.reference.mean) != watched.version.embedding_dimension:
            logger.warning("the reference for drift is of another size", extra={"version": str(name)})
            watched.reference, watched.fetched = None, float("inf")

    def _place(self, watched: _Watched, prediction: Prediction) -> Moments | None:
        if watched.moments is None:
            return None
        embeddings: Embeddings = prediction.tensor(EMBEDDING.name).values
        if np.isfinite(embeddings).all():
            watched.moments.add(embeddings)
        return watched.reference.distances(embeddings) if watched.reference else None

    def _quality(self, watched: _Watched) -> VersionQuality:
        order = np.argsort(-watched.class_shares, kind="stable")
        labels = watched.version.labels
        shares = [(labels[index], index, float(watched.class_shares[index])) for index in map(int, order)]
        return VersionQuality(
            version=watched.version.name,
            images=watched.images,
            class_shares=[one for one in shares if one[2] > 0],
            confidence_shares=watched.confidence_shares.tolist(),
            drift=watched.drift(),
            held_out_drift=watched.reference.held_out_drift if watched.reference else None,
            drifted=self._has_drifted(watched),
        )

    def _has_drifted(self, watched: _Watched) -> bool:
        drift = watched.drift()
        if drift is None or watched.reference is None:
            return False
        return drift > watched.reference.held_out_drift + self._limits.drift_threshold


def in_full(payload: Payload) -> Payload:
    """The same request with all outputs of the graph."""
    return replace(payload, outputs=()) if payload.outputs else payload


def _fade(shares: Moments, found: npt.NDArray[Any], weight: float) -> None:
    """Move shares towards those of some new images."""
    shares += weight * (np.bincount(found, minlength=len(shares)) / len(found) - shares)


def _answers(prediction: Prediction) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(items,) confidences; and (items,) most likely classes, or none."""
    task, none = prediction.version.task, np.zeros(0, np.int64)
    if task is Task.CLASSIFICATION:
        rows = prediction.tensor("probabilities").values
        return rows.max(axis=1), rows.argmax(axis=1)
    if task is Task.SEGMENTATION:
        if prediction.tensors:
            return prediction.tensor("confidence").values, none
        return np.array([one.tensor("confidence").of_one[0] for one in prediction.pictures]), none
    if prediction.tensors:
        scores, accepted = (prediction.tensor(name).values for name in ("scores", "accepted"))
        return np.where(accepted, scores, 0).max(axis=1, initial=0), none
    return np.array([_surest(one) for one in prediction.pictures]), none


def _surest(picture: PictureAnswer) -> float:
    scores, accepted = picture.tensor("scores").of_one, picture.tensor("accepted").of_one
    return float(scores[accepted].max(initial=0))
