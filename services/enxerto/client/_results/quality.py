"""How well deployments answer, and what they kept for labelling."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How often a class is the most likely one."""

    label: str
    index: int
    share: float


@dataclass(frozen=True, slots=True)
class VersionQuality:
    """What was observed of one version."""

    model_version: str
    observed_images: int
    class_shares: tuple[ClassShare, ...]
    """Of about the last thousand observed images, the largest first."""
    confidence_shares: tuple[float, ...]
    """Of [0, 0.1), [0.1, 0.2), ... [0.9, 1]."""
    embedding_drift: float | None
    """How far the images lie from those of training; None while it is not known."""
    held_out_drift: float | None
    """What no drift at all looks like."""
    drifted: bool


@dataclass(frozen=True, slots=True)
class LiveAccuracy:
    """How often a version was right, of those answers that somebody gave the true label of."""

    model_version: str
    accuracy: float
    feedback: int
    """Answers with feedback."""
    unknown_labels: int
    """Of those, the ones whose true label is none of the version's classes."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a deployment answers."""

    deployment: str
    versions: tuple[VersionQuality, ...]
    """The last one first."""
    accuracies: tuple[LiveAccuracy, ...]
    samples: int
    """Images kept for labelling."""
    samples_bytes: int


@dataclass(frozen=True, slots=True)
class SamplingPolicy:
    """Which images of a deployment are kept for labelling."""

    deployment: str
    max_samples: int
    """0 keeps none."""
    max_size_bytes: int
    uncertain_below: float
    """Keeps images whose confidence is below this."""
    drifted_beyond: float
    """Keeps images that lie so many times as far from the training images' mean as those themselves; 0 keeps none."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that was kept for labelling."""

    name: str
    reason: str
    """UNCERTAIN or DRIFTED."""
    model_version: str
    predicted_label: str
    confidence: float
    embedding_distance: float | None
    true_label: str
    """What feedback said; empty without."""
    size_bytes: int
    sha256: str = field(repr=False)
    create_time: datetime | None
