"""Datasets and snapshots."""

from collections.abc import Iterable

from enxerto.client import _results as results
from enxerto.client._converters.shared import enum_name, failure, state, task, time
from enxerto.training.v1 import dataset_pb2


def dataset(message: dataset_pb2.Dataset) -> results.Dataset:
    """Convert a dataset."""
    return results.Dataset(
        message.name, message.display_name, task(message.task), message.latest_snapshot, time(message, "create_time")
    )


def snapshot(message: dataset_pb2.Snapshot) -> results.Snapshot:
    """Convert a snapshot."""
    return results.Snapshot(
        name=message.name,
        state=state(results.SnapshotState, dataset_pb2.Snapshot.State, message.state),
        digest=message.digest,
        class_names=tuple(message.class_names),
        split_counts=dict(message.split_counts),
        size_bytes=message.size_bytes,
        findings=_findings(message.findings),
        finding_count=message.finding_count,
        error=failure(message),
        create_time=time(message, "create_time"),
        statistics=_statistics(message.statistics) if message.HasField("statistics") else None,
    )


def validation(message: dataset_pb2.ValidationReport) -> results.ValidationReport:
    """Convert what a validation has found."""
    return results.ValidationReport(
        importable=message.importable,
        findings=_findings(message.findings),
        finding_count=message.finding_count,
        split_counts=dict(message.split_counts),
        statistics=_statistics(message.statistics) if message.HasField("statistics") else None,
    )


def _findings(messages: Iterable[dataset_pb2.Finding]) -> tuple[results.Finding, ...]:
    return tuple(
        results.Finding(
            enum_name(dataset_pb2.Finding.Severity, finding.severity),
            finding.path,
            finding.code,
            finding.message,
            finding.line,
        )
        for finding in messages
    )


def _statistics(message: dataset_pb2.DatasetStatistics) -> results.Statistics:
    return results.Statistics(
        format=message.format,
        image_count=message.image_count,
        annotation_count=message.annotation_count,
        classes=tuple(results.ClassCount(one.class_name, dict(one.split_counts)) for one in message.classes),
        sizes={one.max_side: one.count for one in message.sizes},
    )
