"""Puts the servicers on the process shell's server."""

from collections.abc import Awaitable, Callable, Sequence

import grpc
from prometheus_client import CollectorRegistry

from enxerto.runtime.server import serve_until_signalled
from enxerto.training.servicer import DatasetServicer, SweepServicer, TrainingServicer
from enxerto.training.settings import TrainingSettings
from enxerto.training.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    sweep_service_pb2,
    sweep_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)

SERVICES = (
    dataset_service_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
    sweep_service_pb2.DESCRIPTOR.services_by_name["SweepService"].full_name,
    training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name,
)


async def serve(
    settings: TrainingSettings,
    metrics: CollectorRegistry,
    datasets: DatasetServicer,
    training: TrainingServicer,
    sweeps: SweepServicer,
    *,
    background: Sequence[Callable[[], Awaitable[None]]],
    on_drain: Callable[[], None],
) -> None:
    """Serve until signalled."""

    def register(server: grpc.aio.Server) -> None:
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, server)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, server)
        sweep_service_pb2_grpc.add_SweepServiceServicer_to_server(sweeps, server)

    await serve_until_signalled(settings, metrics, SERVICES, register, background=background, on_drain=on_drain)
