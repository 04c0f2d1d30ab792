"""The registry, as the front asks it: what a number or an alias means now."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import grpc

from enxerto.inference.domain import Meaning, ServableVersion
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.registry.v1 import model_version_pb2, registry_service_pb2, registry_service_pb2_grpc
from enxerto.type.v1 import task_pb2, tensor_pb2
from enxerto.vision.contracts import ordered_outputs, outputs_text
from enxerto.vision.embeddings import REFERENCE_FILE, EmbeddingReference
from enxerto.vision.onnx.golden import GOLDEN_FILE, MAX_GOLDEN_BYTES, Golden, GoldenError, read_golden
from enxerto.vision.specs import Resize, Task, TensorSpec

_TIMEOUT_S = 10.0
_DOWNLOAD_S = 60.0
_MAX_REFERENCE_BYTES = 8 * 2**20
_TASKS = {task_pb2.Task.Value(f"TASK_{task.value}"): task for task in Task}
_RESIZES = {tensor_pb2.PreprocessSpec.Resize.Value(f"RESIZE_{resize.value}"): resize for resize in Resize}
# The registry takes so many at once.
_MAX_NAMES = 1000
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
        return servable(await self._version(str(reference)))

    async def meanings(self, references: Collection[VersionReference]) -> Mapping[VersionReference, Meaning]:
        """What many numbers and aliases mean now; see `ModelRegistry.meanings`."""
        asked = {str(reference): reference for reference in references}
        names, found = list(asked), {}
        for start in range(0, len(names), _MAX_NAMES):
            request = registry_service_pb2.ResolveModelVersionsRequest(names=names[start : start + _MAX_NAMES])
            try:
                answer = await self._stub.ResolveModelVersions(request, timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise _unavailable(error) from error
            for one in answer.versions:
                ready = one.state == model_version_pb2.ModelVersion.STATE_READY
                found[asked[one.name]] = Meaning(VersionName.parse(one.version), ready)
        return found

    async def golden(self, version: ServableVersion) -> Golden | None:
        """The inputs that a version came with; see `ModelRegistry.golden`."""
        name = version.name
        if not version.golden_sha256:
            return None
        gone = VersionNotServableError(name, "has golden inputs that the registry does not have")
        content = await self._blob(name, version.golden_sha256, MAX_GOLDEN_BYTES, gone)
        if content is None:
            raise VersionNotServableError(name, f"has golden inputs of more than {MAX_GOLDEN_BYTES} bytes")
        try:
            return await asyncio.to_thread(read_golden, content, version.task)
        except GoldenError as error:
            raise VersionNotServableError(name, f"has golden inputs that cannot be used: {error.message}") from error

    async def labels(self, name: VersionName) -> tuple[str, ...]:
        """A version's classes; see `ModelRegistry.labels`."""
        return tuple((await self._version(str(name))).label_map.names)

    async def embedding_reference(self, name: VersionName) -> EmbeddingReference | None:
        """The artefact that the training left; see `ModelRegistry.embedding_reference`."""
        version = await self._version(str(name))
        sha256 = _artifact(version, REFERENCE_FILE)
        if not sha256:
            return None
        content = await self._blob(name, sha256, _MAX_REFERENCE_BYTES, VersionNotFoundError(str(name)))
        try:
            return EmbeddingReference.from_json(content) if content is not None else None
        except ValueError:
            # A file of that name which somebody else registered.
            return None

    async def _version(self, name: str) -> model_version_pb2.ModelVersion:
        request = registry_service_pb2.GetModelVersionRequest(name=name)
        try:
            return await self._stub.GetModelVersion(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _meant(error, VersionNotFoundError(name)) from error

    async def _blob(self, name: VersionName, sha256: str, most_bytes: int, gone: EnxertoError) -> bytes | None:
        """One file of a version, checked; None when it has more bytes than that.

        Raises:
            gone: the registry does not have it.
            RegistryUnavailableError: the registry cannot be reached, or sent something else.
        """
        request = registry_service_pb2.DownloadBlobRequest(parent=f"projects/{name.project}", sha256=sha256)
        content = bytearray()
        try:
            async for message in self._stub.DownloadBlob(request, timeout=_DOWNLOAD_S):
                content += message.chunk
                if len(content) > most_bytes:
                    return None
        except grpc.aio.AioRpcError as error:
            raise _meant(error, gone) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RegistryUnavailableError(f"a file of {name} came damaged", retry_after_s=2.0)
        return bytes(content)


def _meant(error: grpc.aio.AioRpcError, gone: EnxertoError) -> EnxertoError:
    return gone if error.code() in _GONE else _unavailable(error)


def _unavailable(error: grpc.aio.AioRpcError) -> RegistryUnavailableError:
    return RegistryUnavailableError(f"the registry answered {error.code().name}", retry_after_s=2.0)


def _artifact(version: model_version_pb2.ModelVersion, filename: str) -> str:
    """The digest of a version's file; empty when it has none of that name."""
    return next((file.sha256 for file in version.artifacts if file.filename == filename), "")


def servable(version: model_version_pb2.ModelVersion) -> ServableVersion:
    """Check that a version may be served, and keep what the front needs of it.

    Raises:
        VersionNotServableError: it is quarantined, or its graph is not one of its task.
    """
    name = VersionName.parse(version.name)
    if version.state != model_version_pb2.ModelVersion.STATE_READY:
        state = model_version_pb2.ModelVersion.State.Name(version.state).removeprefix("STATE_")
        raise VersionNotServableError(name, f"is {state}; only a READY version may be served")
    task = _TASKS.get(version.task)
    if task is None:
        raise VersionNotServableError(name, "is for a task that this service does not know")
    if len(version.inputs) != 1:
        raise VersionNotServableError(name, f"needs exactly one input, has {len(version.inputs)}")
    resize = _RESIZES.get(version.preprocess.resize, Resize.CENTER_CROP)
    height, width = version.preprocess.height, version.preprocess.width
    graph_input, sides = version.inputs[0], (-1, -1) if resize is Resize.FIT else (height, width)
    if graph_input.datatype != "FP32" or tuple(graph_input.shape) != (-1, 3, *sides) or min(height, width) < 1:
        shape = f"(-1, 3, {sides[0]}, {sides[1]})"
        raise VersionNotServableError(name, f"needs an input of FP32 and shape {shape}, as its preprocessing says")
    labels = tuple(version.label_map.names)
    if not labels and task is not Task.STYLE:
        raise VersionNotServableError(name, "needs a label map")
    golden, outputs = _artifact(version, GOLDEN_FILE), _outputs(name, task, version)
    return ServableVersion(name, task, labels, height, width, outputs, resize, graph_input.name, golden)


def _outputs(name: VersionName, task: Task, version: model_version_pb2.ModelVersion) -> tuple[TensorSpec, ...]:
    """The graph's outputs in the order of the task's contract, and then the optional ones that it has."""
    outputs = ordered_outputs(task, (TensorSpec(one.name, one.datatype, tuple(one.shape)) for one in version.outputs))
    if outputs is None:
        raise VersionNotServableError(name, f"is for {task} and needs the outputs {outputs_text(task)}")
    return outputs
