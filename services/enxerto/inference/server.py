"""Puts the services on the runtime's server."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from enxerto.inference.oip.servicer import SERVICE as OPEN_INFERENCE
from enxerto.inference.oip.servicer import OpenInferenceServicer, add_to_server
from enxerto.inference.oip.shared_memory import Regions
from enxerto.inference.service import CountedPredictions, Deployments, Observer, Quality, Reconciler, Samples
from enxerto.inference.servicer import DeploymentServicer, QualityServicer, VisionServicer
from enxerto.inference.settings import InferenceSettings
from enxerto.inference.v1 import deployment_service_pb2, quality_service_pb2, vision_service_pb2
from enxerto.inference.v1.deployment_service_pb2_grpc import add_DeploymentServiceServicer_to_server
from enxerto.inference.v1.quality_service_pb2_grpc import add_QualityServiceServicer_to_server
from enxerto.inference.v1.vision_service_pb2_grpc import add_VisionServiceServicer_to_server
from enxerto.runtime.server import GrpcServer, Register, serve_until_signalled

SERVICES = (
    deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"].full_name,
    vision_service_pb2.DESCRIPTOR.services_by_name["VisionService"].full_name,
    quality_service_pb2.DESCRIPTOR.services_by_name["QualityService"].full_name,
    OPEN_INFERENCE,
)
FREQUENT = ("/enxerto.inference.v1.VisionService/", "/inference.GRPCInferenceService/ModelInfer")
"""What would drown the log: a line takes longer to write than a request to route."""


@dataclass(frozen=True, slots=True)
class UseCases:
    """Everything that the servicers call."""

    deployments: Deployments
    predictions: CountedPredictions
    reconciler: Reconciler
    regions: Regions | None
    """Shared memory of callers; None where the settings do not allow it."""
    quality: Quality
    samples: Samples
    observer: Observer
    on_drain: Callable[[], None]
    """Ends endless streams, so that their clients reconnect elsewhere."""


def _registration(use_cases: UseCases) -> Register:
    def register(server: grpc.aio.Server) -> None:
        add_DeploymentServiceServicer_to_server(DeploymentServicer(use_cases.deployments), server)
        add_VisionServiceServicer_to_server(VisionServicer(use_cases.predictions), server)
        add_QualityServiceServicer_to_server(QualityServicer(use_cases.quality, use_cases.samples), server)
        inference = OpenInferenceServicer(
            use_cases.predictions,
            use_cases.deployments,
            use_cases.regions,
            lambda: use_cases.reconciler.synced,
        )
        add_to_server(inference, server)

    return register


def build_server(
    settings: InferenceSettings,
    metrics: CollectorRegistry,
    use_cases: UseCases,
) -> GrpcServer:
    """A server that listens and is not yet running."""
    return GrpcServer(settings, metrics, SERVICES, _registration(use_cases), FREQUENT)


async def serve(
    settings: InferenceSettings,
    metrics: CollectorRegistry,
    use_cases: UseCases,
    background: Sequence[Callable[[], Awaitable[None]]],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    register = _registration(use_cases)
    await serve_until_signalled(
        settings,
        metrics,
        SERVICES,
        register,
        frequent=FREQUENT,
        background=background,
        on_drain=use_cases.on_drain,
    )
