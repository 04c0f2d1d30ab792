"""Domain to wire."""

from collections.abc import AsyncIterator, Mapping

from enxerto.kernel.names import VersionName, VersionReference
from enxerto.kernel.paging import Page
from enxerto.registry.domain import Artifact, Blob, Model, Parity, ResolvedVersion, State, Version
from enxerto.registry.v1 import model_pb2, model_version_pb2
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.runtime.paging import fitting
from enxerto.runtime.timestamps import timestamp
from enxerto.type.v1 import metric_pb2, task_pb2, tensor_pb2
from enxerto.vision.specs import Task, TensorSpec


def model_to_proto(model: Model) -> model_pb2.Model:
    """A model as clients see it."""
    versions = {alias: str(_version_name(model, number)) for alias, number in model.aliases.items()}
    return model_pb2.Model(
        name=str(model.name),
        display_name=model.content.display_name,
        description=model.content.description,
        task=_task(model.content.task),
        labels=model.content.labels,
        aliases=versions,
        latest_version=str(_version_name(model, model.latest)) if model.latest else "",
        create_time=timestamp(model.create_time),
        update_time=timestamp(model.update_time),
        etag=model.etag,
    )


def models_to_proto(page: Page[Model]) -> pb.ListModelsResponse:
    """One page of models."""
    return pb.ListModelsResponse(
        models=[model_to_proto(model) for model in page.items], next_page_token=page.next_page_token
    )


def version_to_proto(version: Version) -> model_version_pb2.ModelVersion:
    """A version as clients see it."""
    content, lineage, preprocess = version.content, version.content.lineage, version.content.preprocess
    return model_version_pb2.ModelVersion(
        name=str(version.name),
        state=_state(version.state),
        task=_task(version.task),
        artifacts=[_artifact(item) for item in content.artifacts],
        label_map=tensor_pb2.LabelMap(names=content.label_map.names),
        preprocess=tensor_pb2.PreprocessSpec(
            height=preprocess.height,
            width=preprocess.width,
            crop_fraction=preprocess.crop_fraction,
            interpolation=preprocess.interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
            resize=tensor_pb2.PreprocessSpec.Resize.Value(f"RESIZE_{preprocess.resize.value}"),
        ),
        inputs=[_tensor(item) for item in content.inputs],
        outputs=[_tensor(item) for item in content.outputs],
        metrics=[
            metric_pb2.Metric(name=item.name, value=item.value, split=item.split, class_name=item.class_name)
            for item in content.metrics
        ],
        parity=_parity(content.parity) if content.parity else None,
        lineage=model_version_pb2.Lineage(
            snapshot=lineage.snapshot,
            snapshot_digest=lineage.snapshot_digest,
            base_model=lineage.base_model,
            weights_digest=lineage.weights_digest,
            weights_source=lineage.weights_source,
            licence=lineage.licence,
            training_run=lineage.training_run,
        ),
        labels=content.labels,
        create_time=timestamp(version.create_time),
    )


def resolved_to_proto(found: Mapping[VersionReference, ResolvedVersion]) -> pb.ResolveModelVersionsResponse:
    """What names mean."""
    versions = [
        pb.ResolvedVersion(name=str(reference), version=str(resolved.version), state=_state(resolved.state))
        for reference, resolved in found.items()
    ]
    return pb.ResolveModelVersionsResponse(versions=versions)


def versions_to_proto(page: Page[Version]) -> pb.ListModelVersionsResponse:
    """One page of versions."""
    versions, token = fitting(page, map(version_to_proto, page.items))
    return pb.ListModelVersionsResponse(model_versions=versions, next_page_token=token)


def upload_to_proto(blob: Blob) -> pb.UploadBlobResponse:
    """What was stored."""
    return pb.UploadBlobResponse(sha256=blob.sha256, size_bytes=blob.size_bytes)


async def download_to_proto(blob: Blob, chunks: AsyncIterator[bytes]) -> AsyncIterator[pb.DownloadBlobResponse]:
    """The messages of a download: the first carries the size, and is sent for an empty blob too."""
    first = True
    async for chunk in chunks:
        yield pb.DownloadBlobResponse(size_bytes=blob.size_bytes if first else 0, chunk=chunk)
        first = False
    if first:
        yield pb.DownloadBlobResponse(size_bytes=blob.size_bytes)


def _version_name(model: Model, number: int) -> VersionName:
    return VersionName(model.name.project, model.name.model, number)


def _state(state: State) -> model_version_pb2.ModelVersion.State.ValueType:
    return model_version_pb2.ModelVersion.State.Value(f"STATE_{state.value}")


def _task(task: Task) -> task_pb2.Task.ValueType:
    return task_pb2.Task.Value(f"TASK_{task.value}")


def _parity(item: Parity) -> model_version_pb2.Parity:
    return model_version_pb2.Parity(
        max_abs_difference=item.max_abs_difference,
        agreement=item.agreement,
        sample_count=item.sample_count,
        batch_sizes=item.batch_sizes,
    )


def _artifact(item: Artifact) -> model_version_pb2.Artifact:
    return model_version_pb2.Artifact(
        filename=item.filename,
        role=model_version_pb2.Artifact.Role.Value(f"ROLE_{item.role.value}"),
        sha256=item.sha256,
        size_bytes=item.size_bytes,
        media_type=item.media_type,
    )


def _tensor(item: TensorSpec) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=item.name, datatype=item.datatype, shape=item.shape)
