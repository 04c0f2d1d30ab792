"""Questions that a job answers: what a run would take, which base model suits, whether weights fit."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from enxerto.kernel.names import ProjectName


class InquiryKind(enum.StrEnum):
    """What the job does; its value is the worker's `--mode`."""

    ESTIMATE = "estimate"
    RECOMMEND = "recommend"
    CHECK_WEIGHTS = "check-weights"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One question. Equal questions have equal uids, so that they share one job and one answer."""

    kind: InquiryKind
    parent: ProjectName | None
    """Who asks first; weights belong to nobody."""
    uid: str
    document: Mapping[str, object]
    """What the job reads, as JSON values."""

    def job_id(self, attempt: int) -> str:
        """Submission id of an attempt."""
        return f"{self.uid}-{attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """What a run would take on this cluster."""

    duration_s: float
    epoch_duration_s: float
    images_per_second: float
    memory_bytes: int
    gpu_memory_bytes: int
    measured_steps: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelScore:
    """How well the features of a base model tell the classes apart."""

    base_model: str
    """Name in the catalogue."""
    probe_accuracy: float
    knn_accuracy: float
    time_per_image_s: float
    parameter_count: int


@dataclass(frozen=True, slots=True)
class BaseModelRanking:
    """Base models, best first."""

    scores: tuple[BaseModelScore, ...]
    skipped: Mapping[str, str]
    """Why a base model could not be probed, by its name in the catalogue."""
