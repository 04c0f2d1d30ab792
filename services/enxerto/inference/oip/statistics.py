"""Counts of what was served, in the protocol's words."""

from collections.abc import Mapping

from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.names import model_id
from enxerto.inference.service import BatchTimes, Spent, VersionStatistics
from enxerto.kernel.names import DeploymentName, VersionName


def statistics_to_proto(
    counted: Mapping[tuple[DeploymentName, VersionName], VersionStatistics], asked: str = ""
) -> pb.ModelStatisticsResponse:
    """One entry for each version, under the name that was asked for: perf_analyzer looks for its own."""
    return pb.ModelStatisticsResponse(
        model_stats=[_version(asked or model_id(name), version, counts) for (name, version), counts in counted.items()]
    )


def _version(name: str, version: VersionName, counts: VersionStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=name,
        version=str(version.number),
        last_inference=round(counts.last_s * 1000),
        inference_count=counts.images,
        execution_count=counts.executions,
        inference_stats=pb.InferStatistics(
            success=_spent(counts.success),
            fail=_spent(counts.fail),
            queue=_spent(counts.queue),
            cache_hit=_spent(counts.cache_hit),
            cache_miss=_spent(counts.cache_miss),
            **_times(counts.requests),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, **_times(times)) for size, times in sorted(counts.batches.items())
        ],
    )


def _times(times: BatchTimes) -> dict[str, pb.StatisticDuration]:
    return {
        "compute_input": _spent(times.decode),
        "compute_infer": _spent(times.compute),
        "compute_output": _spent(times.encode),
    }


def _spent(spent: Spent) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=spent.count, ns=round(spent.seconds * 1e9))
