"""The training contract: convert, call, convert."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from enxerto.kernel.names import BaseModelName, DatasetName, SnapshotName
from enxerto.training import converters
from enxerto.training.service import BaseModels, Datasets, Runs
from enxerto.training.v1 import (
    base_model_pb2,
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    training_run_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
)

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
        return dataset_service_pb2.ListSnapshotsResponse(
            snapshots=[converters.snapshot_to_proto(one) for one in found.items], next_page_token=found.next_page_token
        )


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """enxerto.training.v1.TrainingService."""

    def __init__(self, runs: Runs, base_models: BaseModels) -> None:
        self._runs = runs
        self._base_models = base_models

    async def CreateTrainingRun(
        self, request: training_service_pb2.CreateTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Accept a run."""
        new = converters.new_run(request)
        run = await self._runs.create(new.parent, new.run_id, new.spec, new.labels, new.request)
        return converters.run_to_proto(run)

    async def GetTrainingRun(
        self, request: training_service_pb2.GetTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Read one run."""
        return converters.run_to_proto(await self._runs.get(converters.run_name(request.name)))

    async def ListTrainingRuns(
        self, request: training_service_pb2.ListTrainingRunsRequest, context: Context
    ) -> training_service_pb2.ListTrainingRunsResponse:
        """List the runs of a project, newest first."""
        parent, page = converters.project_page(request.parent, request.page_size, request.page_token)
        found = await self._runs.list_page(parent, page)
        return training_service_pb2.ListTrainingRunsResponse(
            training_runs=[converters.run_to_proto(one) for one in found.items], next_page_token=found.next_page_token
        )

    async def CancelTrainingRun(
        self, request: training_service_pb2.CancelTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Ask a run to stop."""
        return converters.run_to_proto(await self._runs.cancel(converters.run_name(request.name)))

    async def WatchTrainingRun(
        self, request: training_service_pb2.WatchTrainingRunRequest, context: Context
    ) -> AsyncIterator[training_run_pb2.TrainingEvent]:
        """Stream the run's events after the cursor."""
        name, after_cursor = converters.watch(request)
        async for event in self._runs.watch(name, after_cursor):
            yield converters.event_to_proto(event)

    async def ListBaseModels(
        self, request: training_service_pb2.ListBaseModelsRequest, context: Context
    ) -> training_service_pb2.ListBaseModelsResponse:
        """List the base models by name."""
        found = await self._base_models.list_page(converters.catalogue_page(request))
        return training_service_pb2.ListBaseModelsResponse(
            base_models=[converters.base_model_to_proto(one) for one in found.items],
            next_page_token=found.next_page_token,
        )

    async def GetBaseModel(
        self, request: training_service_pb2.GetBaseModelRequest, context: Context
    ) -> base_model_pb2.BaseModel:
        """Read one base model."""
        return converters.base_model_to_proto(await self._base_models.get(BaseModelName.parse(request.name)))
