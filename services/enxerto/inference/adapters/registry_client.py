"""The registry, as the front asks it: what a number or an alias means now."""

from pathlib import Path

import grpc

from enxerto.inference.domain import ServableVersion
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.registry.v1 import model_version_pb2, registry_service_pb2, registry_service_pb2_grpc
from enxerto.type.v1 import task_pb2

_TIMEOUT_S = 10.0
_GONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


def open_channel(address: str, certificates: Path | None) -> grpc.aio.Channel:
    """A channel to the registry; TLS when the authorities are given."""
    options = [("grpc.keepalive_time_ms", 30_000)]
    if certificates is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(certificates.read_bytes()), options)


class RegistryClient:
    """Resolves references over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = registry_service_pb2_grpc.RegistryServiceStub(channel)

    async def resolve(self, reference: VersionReference) -> ServableVersion:
        """The version that a number or an alias means now; see `ModelRegistry.resolve`."""
        request = registry_service_pb2.GetModelVersionRequest(name=str(reference))
        try:
            version = await self._stub.GetModelVersion(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _GONE:
                raise VersionNotFoundError(str(reference)) from error
            raise RegistryUnavailableError(f"the registry answered {error.code().name}", retry_after_s=2.0) from error
        return servable(version)


def servable(version: model_version_pb2.ModelVersion) -> ServableVersion:
    """Check that a version may be served, and keep what the front needs of it.

    Raises:
        VersionNotServableError: it is quarantined, or its graph is not an image classifier's.
    """
    name = VersionName.parse(version.name)
    if version.state != model_version_pb2.ModelVersion.STATE_READY:
        state = model_version_pb2.ModelVersion.State.Name(version.state).removeprefix("STATE_")
        raise VersionNotServableError(name, f"is {state}; only a READY version may be served")
    if version.task != task_pb2.TASK_CLASSIFICATION:
        raise VersionNotServableError(name, "is for a task that this service does not know")
    if len(version.inputs) != 1 or len(version.outputs) != 1 or not version.label_map.names:
        raise VersionNotServableError(name, "needs exactly one input, one output and a label map")
    graph_input, graph_output = version.inputs[0], version.outputs[0]
    shape = tuple(graph_input.shape)
    if graph_input.datatype != "FP32" or len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 1:
        raise VersionNotServableError(name, "needs an input of FP32 and shape (-1, 3, height, width)")
    return ServableVersion(
        name, tuple(version.label_map.names), shape[2], shape[3], graph_input.name, graph_output.name
    )
