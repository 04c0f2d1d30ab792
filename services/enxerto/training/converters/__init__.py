"""Between the training contract and the domain."""

from enxerto.training.converters.catalogue import (
    base_model_to_proto,
    catalogue_page,
    estimate_to_proto,
    preprocess_to_proto,
    ranking_to_proto,
    recommendation,
    weights_chunk,
    weights_header,
)
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
from enxerto.training.converters.runs import (
    estimated_spec,
    event_to_proto,
    new_run,
    run_file_name,
    run_name,
    run_to_proto,
    watch,
)
from enxerto.training.converters.sweeps import new_sweep, sweep_to_proto, trial_spec

__all__ = [
    "archive_chunk",
    "archive_header",
    "base_model_to_proto",
    "catalogue_page",
    "dataset_page",
    "dataset_to_proto",
    "estimate_to_proto",
    "estimated_spec",
    "event_to_proto",
    "new_dataset",
    "new_run",
    "new_snapshot",
    "new_sweep",
    "new_validation",
    "preprocess_to_proto",
    "project_page",
    "ranking_to_proto",
    "recommendation",
    "run_file_name",
    "run_name",
    "run_to_proto",
    "snapshot_to_proto",
    "sweep_to_proto",
    "trial_spec",
    "upload_name",
    "validation_to_proto",
    "watch",
    "weights_chunk",
    "weights_header",
]
