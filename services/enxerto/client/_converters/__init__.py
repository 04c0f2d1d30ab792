"""From the contracts' messages to the values that callers read."""

from enxerto.client._converters.answers import detections, embeddings, predictions, segmentations, stylized
from enxerto.client._converters.datasets import dataset, snapshot, validation
from enxerto.client._converters.models import deployment, model, version
from enxerto.client._converters.quality import quality, sample, sampling_policy
from enxerto.client._converters.runs import base_model, estimate, event, ranking, run, sweep
from enxerto.client._converters.shared import progress

__all__ = [
    "base_model",
    "dataset",
    "deployment",
    "detections",
    "embeddings",
    "estimate",
    "event",
    "model",
    "predictions",
    "progress",
    "quality",
    "ranking",
    "run",
    "sample",
    "sampling_policy",
    "segmentations",
    "snapshot",
    "stylized",
    "sweep",
    "validation",
    "version",
]
