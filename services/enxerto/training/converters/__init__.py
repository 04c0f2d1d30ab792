"""Between the training contract and the domain."""

from enxerto.training.converters.answers import base_model_to_proto, event_to_proto, run_to_proto
from enxerto.training.converters.datasets import (
    archive_chunk,
    archive_header,
    dataset_page,
    dataset_to_proto,
    new_dataset,
    new_snapshot,
    new_validation,
    snapshot_to_proto,
    upload_name,
    validation_to_proto,
)
from enxerto.training.converters.fields import project_page
from enxerto.training.converters.requests import catalogue_page, new_run, run_name, watch

__all__ = [
    "archive_chunk",
    "archive_header",
    "base_model_to_proto",
    "catalogue_page",
    "dataset_page",
    "dataset_to_proto",
    "event_to_proto",
    "new_dataset",
    "new_run",
    "new_snapshot",
    "new_validation",
    "project_page",
    "run_name",
    "run_to_proto",
    "snapshot_to_proto",
    "upload_name",
    "validation_to_proto",
    "watch",
]
