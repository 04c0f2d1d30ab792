"""The registry on gRPC: convert, call, convert."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from enxerto.registry import converters
from enxerto.registry.service import Registry
from enxerto.registry.v1 import model_pb2, model_version_pb2, registry_service_pb2_grpc
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.runtime.interceptors import Context


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Serves `enxerto.registry.v1.RegistryService`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def CreateModel(self, request: pb.CreateModelRequest, context: Context) -> model_pb2.Model:
        """Create a model without versions."""
        name, content = converters.model_to_create(request)
        return converters.model_to_proto(await self._registry.create_model(name, content, request.request_id))

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> model_pb2.Model:
        """Read one model."""
        return converters.model_to_proto(await self._registry.get_model(converters.model_name(request)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List the models of a project, by name."""
        parent, page = converters.models_to_list(request)
        return converters.models_to_proto(await self._registry.list_models(parent, page))

    async def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, context: Context
    ) -> model_version_pb2.ModelVersion:
        """Create the next version of a model."""
        parent, content = converters.version_to_create(request)
        return converters.version_to_proto(await self._registry.create_version(parent, content, request.request_id))

    async def GetModelVersion(
        self, request: pb.GetModelVersionRequest, context: Context
    ) -> model_version_pb2.ModelVersion:
        """Read one version by number or by alias."""
        return converters.version_to_proto(await self._registry.get_version(converters.version_reference(request)))

    async def ResolveModelVersions(
        self, request: pb.ResolveModelVersionsRequest, context: Context
    ) -> pb.ResolveModelVersionsResponse:
        """Say what many numbers and aliases mean now."""
        references = converters.references_to_resolve(request)
        return converters.resolved_to_proto(await self._registry.resolve(references))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        """List the versions of a model, newest first."""
        parent, page = converters.versions_to_list(request)
        return converters.versions_to_proto(await self._registry.list_versions(parent, page))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> model_pb2.Model:
        """Point an alias to a version, atomically."""
        model, version = converters.alias_to_set(request)
        updated = await self._registry.set_alias(model, request.alias, version, request.etag)
        return converters.model_to_proto(updated)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> model_pb2.Model:
        """Remove an alias."""
        model = converters.alias_to_delete(request)
        return converters.model_to_proto(await self._registry.delete_alias(model, request.alias, request.etag))

    async def UploadBlob(self, request: AsyncIterator[pb.UploadBlobRequest], context: Context) -> pb.UploadBlobResponse:
        """Store bytes under their sha256."""
        declared, chunks = await converters.upload(request)
        return converters.upload_to_proto(await self._registry.upload(declared, chunks))

    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        """Stream the bytes of a blob."""
        blob, chunks = await self._registry.download(*converters.blob_to_download(request))
        async with aclosing(chunks):
            async for response in converters.download_to_proto(blob, chunks):
                yield response
