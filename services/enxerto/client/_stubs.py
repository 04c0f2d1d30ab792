"""The generated stubs, each on a channel that opens when it is first used."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import grpc

from enxerto.client._channel import Tls, open_channel
from enxerto.client._errors import PlatformNotRunningError
from enxerto.inference.v1 import deployment_service_pb2_grpc, quality_service_pb2_grpc, vision_service_pb2_grpc
from enxerto.local.state import PlatformState, default_home
from enxerto.registry.v1 import registry_service_pb2_grpc
from enxerto.training.v1 import dataset_service_pb2_grpc, sweep_service_pb2_grpc, training_service_pb2_grpc


class Stubs:
    """One stub per gRPC service."""

    def __init__(self, addresses: Mapping[str, str], home: Path | str | None, tls: Tls | None) -> None:
        self._addresses = dict(addresses)
        self._home = Path(home).expanduser() if home else default_home()
        self._tls = tls
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = Lock()

    def _channel(self, service: str) -> grpc.Channel:
        with self._lock:
            if service not in self._channels:
                self._channels[service] = open_channel(self._address(service), self._tls)
            return self._channels[service]

    def _address(self, service: str) -> str:
        if service in self._addresses:
            return self._addresses[service]
        state = PlatformState.read(self._home)
        if state is None:
            raise PlatformNotRunningError(
                f"no platform runs under {self._home}: start one with `enxerto up`, or give the services' addresses",
                code="UNAVAILABLE",
                reason="PLATFORM_NOT_RUNNING",
            )
        return state.processes[service].address

    @property
    def registry(self) -> registry_service_pb2_grpc.RegistryServiceStub:
        """Models and versions."""
        return registry_service_pb2_grpc.RegistryServiceStub(self._channel("registry"))

    @property
    def datasets(self) -> dataset_service_pb2_grpc.DatasetServiceStub:
        """Datasets and snapshots."""
        return dataset_service_pb2_grpc.DatasetServiceStub(self._channel("training"))

    @property
    def training(self) -> training_service_pb2_grpc.TrainingServiceStub:
        """Runs and base models."""
        return training_service_pb2_grpc.TrainingServiceStub(self._channel("training"))

    @property
    def sweeps(self) -> sweep_service_pb2_grpc.SweepServiceStub:
        """Sweeps."""
        return sweep_service_pb2_grpc.SweepServiceStub(self._channel("training"))

    @property
    def deployments(self) -> deployment_service_pb2_grpc.DeploymentServiceStub:
        """Deployments."""
        return deployment_service_pb2_grpc.DeploymentServiceStub(self._channel("inference"))

    @property
    def vision(self) -> vision_service_pb2_grpc.VisionServiceStub:
        """Answers."""
        return vision_service_pb2_grpc.VisionServiceStub(self._channel("inference"))

    @property
    def quality(self) -> quality_service_pb2_grpc.QualityServiceStub:
        """How well deployments answer."""
        return quality_service_pb2_grpc.QualityServiceStub(self._channel("inference"))

    def close(self) -> None:
        """Close every channel."""
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()
