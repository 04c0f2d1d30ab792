"""The registry, over gRPC."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from enxerto.kernel.errors import DataLossError, UnavailableError
from enxerto.kernel.names import ModelName
from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2
from enxerto.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from enxerto.training.adapters.object_store import StoredBlobs
from enxerto.training.converters import preprocess_to_proto
from enxerto.training.domain import Parity, TrainingResult, TrainingRun
from enxerto.training.errors import ModelTaskMismatchError, RegistryRefusedError
from enxerto.training.ports import Registered
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2
from enxerto.vision.specs import Task

_CHUNK_BYTES = 2**20
_TIMEOUT_S = 30.0
# Whoever creates a run waits for it.
_LOOK_TIMEOUT_S = 5.0
_UPLOAD_TIMEOUT_S = 900.0
_TASKS = {task_pb2.Task.Value(f"TASK_{task.value}"): task for task in Task}
# The same call may succeed later; every other code is the registry's last word.
_LATER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


def open_channel(address: str, authorities: Path | None) -> grpc.aio.Channel:
    """A channel to the registry, in the clear unless authorities are given."""
    if authorities is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authorities.read_bytes()))


class GrpcRegistry:
    """A `Registry` behind a channel."""

    def __init__(self, channel: grpc.aio.Channel, blobs: StoredBlobs) -> None:
        self._stub = RegistryServiceStub(channel)
        self._blobs = blobs

    async def register(self, run: TrainingRun, result: TrainingResult) -> Registered:
        """Upload the artefacts and create the version; repeating it creates nothing twice."""
        parent = str(run.spec.model.parent)
        try:
            # Before the bytes: a model that is for another task takes none of them.
            await self._create_model(run)
            for artifact in result.artifacts:
                chunks = self._chunks(parent, artifact.sha256, artifact.size_bytes)
                await self._stub.UploadBlob(chunks, timeout=_UPLOAD_TIMEOUT_S)
            version = await self._stub.CreateModelVersion(
                registry_service_pb2.CreateModelVersionRequest(
                    parent=str(run.spec.model), model_version=version_to_proto(run, result), request_id=run.uid
                ),
                timeout=_TIMEOUT_S,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in _LATER:
                raise UnavailableError(
                    f"the registry cannot take the version now: {error.code().name}: {error.details()}"
                ) from error
            message = f"{error.code().name}: {error.details()}"
            raise RegistryRefusedError(run.spec.model, message) from error
        return Registered(version.name, version.state == model_version_pb2.ModelVersion.STATE_QUARANTINED)

    async def _create_model(self, run: TrainingRun) -> None:
        model = run.spec.model
        try:
            await self._stub.CreateModel(
                registry_service_pb2.CreateModelRequest(
                    parent=str(model.parent),
                    model_id=model.model,
                    model=model_pb2.Model(task=task_pb2.Task.Value(f"TASK_{run.spec.finetune.task.value}")),
                ),
                timeout=_TIMEOUT_S,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            existing, task = await self.task_of(model), run.spec.finetune.task
            if existing is not task:
                raise ModelTaskMismatchError(model, existing or "another task", task) from error

    async def task_of(self, model: ModelName) -> Task | None:
        """What a model is for; None when there is no such model. Raises UnavailableError."""
        try:
            found = await self._stub.GetModel(
                registry_service_pb2.GetModelRequest(name=str(model)), timeout=_LOOK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _unavailable("tell a model's task", error) from error
        return _TASKS.get(found.task)

    async def upload(self, parent: str, sha256: str, size_bytes: int) -> None:
        """Copy a stored blob to the registry; one that is there already is fine. Raises UnavailableError."""
        try:
            await self._stub.UploadBlob(self._chunks(parent, sha256, size_bytes), timeout=_UPLOAD_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable("store the weights", error) from error

    async def download(self, parent: str, sha256: str) -> AsyncIterator[bytes]:
        """The bytes of a blob; raises UnavailableError, DataLossError."""
        request = registry_service_pb2.DownloadBlobRequest(parent=parent, sha256=sha256)
        try:
            async for message in self._stub.DownloadBlob(request, timeout=_UPLOAD_TIMEOUT_S):
                yield message.chunk
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise DataLossError(f"the registry has lost the blob {sha256}") from error
            raise _unavailable("give the weights", error) from error

    async def _chunks(
        self, parent: str, sha256: str, size_bytes: int
    ) -> AsyncIterator[registry_service_pb2.UploadBlobRequest]:
        header = registry_service_pb2.BlobHeader(parent=parent, sha256=sha256, size_bytes=size_bytes)
        yield registry_service_pb2.UploadBlobRequest(header=header)
        async for chunk in self._blobs.stream(sha256, _CHUNK_BYTES):
            yield registry_service_pb2.UploadBlobRequest(chunk=chunk)


def _unavailable(action: str, error: grpc.aio.AioRpcError) -> UnavailableError:
    return UnavailableError(f"the registry cannot {action} now: {error.code().name}: {error.details()}")


def version_to_proto(run: TrainingRun, result: TrainingResult) -> model_version_pb2.ModelVersion:
    """The version as the registry's contract has it."""
    version = model_version_pb2.ModelVersion
    return version(
        artifacts=[
            model_version_pb2.Artifact(
                filename=one.filename,
                role=model_version_pb2.Artifact.Role.Value(f"ROLE_{one.role}"),
                sha256=one.sha256,
                media_type=one.media_type,
            )
            for one in result.artifacts
        ],
        label_map=tensor_pb2.LabelMap(names=result.label_map.names),
        preprocess=preprocess_to_proto(result.preprocess),
        inputs=[tensor_pb2.TensorSpec(name=one.name, datatype=one.datatype, shape=one.shape) for one in result.inputs],
        outputs=[
            tensor_pb2.TensorSpec(name=one.name, datatype=one.datatype, shape=one.shape) for one in result.outputs
        ],
        metrics=[
            metric_pb2.Metric(name=one.name, value=one.value, split=one.split, class_name=one.class_name)
            for one in result.metrics
        ],
        parity=_parity_to_proto(result.parity) if result.parity else None,
        lineage=model_version_pb2.Lineage(
            snapshot=str(run.spec.snapshot),
            snapshot_digest=result.lineage.snapshot_digest,
            base_model=str(run.spec.base_model),
            weights_digest=result.lineage.weights_digest,
            weights_source=result.lineage.weights_source,
            licence=result.lineage.licence,
            training_run=str(run.name),
        ),
    )


def _parity_to_proto(parity: Parity) -> model_version_pb2.Parity:
    return model_version_pb2.Parity(
        max_abs_difference=parity.max_abs_difference,
        agreement=parity.agreement,
        sample_count=parity.sample_count,
        batch_sizes=parity.batch_sizes,
    )
