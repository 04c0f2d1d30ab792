"""What several resources have in common."""

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What a model answers."""

    UNSPECIFIED = "UNSPECIFIED"
    CLASSIFICATION = "CLASSIFICATION"
    DETECTION = "DETECTION"
    SEGMENTATION = "SEGMENTATION"
    STYLE = "STYLE"

    @property
    def score(self) -> str:
        """Name of the metric that runs of this task are compared by."""
        return {"DETECTION": "map_50_95", "SEGMENTATION": "miou", "STYLE": "loss"}.get(self.value, "accuracy")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a resource failed."""

    code: str
    """Name of the gRPC status code that it amounts to."""
    reason: str
    """Stable reason in upper snake case."""
    message: str
    """What happened, for people."""
    violations: tuple[str, ...] = ()
    """Every bad field or unmet condition, for people."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number measured on one split."""

    name: str
    value: float
    split: str
    class_name: str = ""
    """The class that it was measured for; empty for all classes together."""


def metric_of(metrics: tuple[Metric, ...], name: str, split: str | None) -> float | None:
    """Find a metric of all classes by name, and by split when one is given."""
    for metric in metrics:
        if metric.name == name and not metric.class_name and split in (None, metric.split):
            return metric.value
    return None
