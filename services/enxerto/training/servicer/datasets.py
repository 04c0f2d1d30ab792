"""Datasets, uploads and snapshots."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from enxerto.kernel.names import DatasetName, SnapshotName
from enxerto.runtime.paging import fitting
from enxerto.training import converters
from enxerto.training.service import Datasets
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """enxerto.training.v1.DatasetService."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    async def CreateDataset(
        self, request: dataset_service_pb2.CreateDatasetRequest, context: Context
    ) -> dataset_pb2.Dataset:
        """Create a dataset without snapshots."""
        new = converters.new_dataset(request)
        dataset = await self._datasets.create(new.name, new.task, new.display_name, new.labels, new.request)
        return converters.dataset_to_proto(dataset)

    async def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        """Read one dataset."""
        return converters.dataset_to_proto(await self._datasets.get(DatasetName.parse(request.name)))

    async def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: Context
    ) -> dataset_service_pb2.ListDatasetsResponse:
        """List the datasets of a project."""
        parent, page = converters.project_page(request.parent, request.page_size, request.page_token)
        found = await self._datasets.list_page(parent, page)
        return dataset_service_pb2.ListDatasetsResponse(
            datasets=[converters.dataset_to_proto(one) for one in found.items], next_page_token=found.next_page_token
        )

    async def UploadArchive(
        self, request_iterator: AsyncIterator[dataset_service_pb2.UploadArchiveRequest], context: Context
    ) -> dataset_service_pb2.UploadArchiveResponse:
        """Store an archive for one later CreateSnapshot."""
        requests = aiter(request_iterator)
        header = converters.archive_header(await anext(requests, None))
        chunks = (converters.archive_chunk(request) async for request in requests)
        await self._datasets.upload(header.parent, header.sha256, header.size_bytes, chunks)
        return dataset_service_pb2.UploadArchiveResponse(
            upload=converters.upload_name(header.parent.project, header.sha256), size_bytes=header.size_bytes
        )

    async def CreateSnapshot(
        self, request: dataset_service_pb2.CreateSnapshotRequest, context: Context
    ) -> dataset_pb2.Snapshot:
        """Start an import."""
        new = converters.new_snapshot(request)
        snapshot = await self._datasets.create_snapshot(new.parent, new.source, new.split_seed, new.request)
        return converters.snapshot_to_proto(snapshot)

    async def GetSnapshot(
        self, request: dataset_service_pb2.GetSnapshotRequest, context: Context
    ) -> dataset_pb2.Snapshot:
        """Read one snapshot."""
        return converters.snapshot_to_proto(await self._datasets.get_snapshot(SnapshotName.parse(request.name)))

    async def ListSnapshots(
        self, request: dataset_service_pb2.ListSnapshotsRequest, context: Context
    ) -> dataset_service_pb2.ListSnapshotsResponse:
        """List the snapshots of a dataset, newest first."""
        parent, page = converters.dataset_page(request)
        found = await self._datasets.list_snapshots(parent, page)
        snapshots, token = fitting(found, map(converters.snapshot_to_proto, found.items))
        return dataset_service_pb2.ListSnapshotsResponse(snapshots=snapshots, next_page_token=token)

    async def ValidateDataset(
        self, request: dataset_service_pb2.ValidateDatasetRequest, context: Context
    ) -> AsyncIterator[dataset_service_pb2.ValidateDatasetResponse]:
        """Look at a source as an import would and store nothing."""
        wanted = converters.new_validation(request)
        async with aclosing(self._datasets.validate(wanted.parent, wanted.source, wanted.split_seed)) as found:
            async for one in found:
                yield converters.validation_to_proto(one)
