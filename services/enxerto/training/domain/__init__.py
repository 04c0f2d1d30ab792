"""Datasets, snapshots, training runs and their events, with the legal transitions. Frozen and pure."""

from enxerto.training.domain.datasets import (
    Dataset,
    DatasetValidation,
    Finding,
    PathSource,
    Snapshot,
    SnapshotContent,
    SnapshotState,
    Source,
    UploadSource,
    UriSource,
)
from enxerto.training.domain.events import (
    EpochCompleted,
    EventBody,
    JobBody,
    JobEvent,
    JobFailed,
    JobStarted,
    JobTrained,
    LogLine,
    Metric,
    Progress,
    RunEvent,
    StateChanged,
)
from enxerto.training.domain.results import Lineage, Parity, ResultArtifact, TrainingResult
from enxerto.training.domain.runs import RunSpec, TrainingRun
from enxerto.training.domain.states import RunState

__all__ = [
    "Dataset",
    "DatasetValidation",
    "EpochCompleted",
    "EventBody",
    "Finding",
    "JobBody",
    "JobEvent",
    "JobFailed",
    "JobStarted",
    "JobTrained",
    "Lineage",
    "LogLine",
    "Metric",
    "Parity",
    "PathSource",
    "Progress",
    "ResultArtifact",
    "RunEvent",
    "RunSpec",
    "RunState",
    "Snapshot",
    "SnapshotContent",
    "SnapshotState",
    "Source",
    "StateChanged",
    "TrainingResult",
    "TrainingRun",
    "UploadSource",
    "UriSource",
]
