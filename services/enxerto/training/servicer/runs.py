"""Training runs and the catalogue of base models."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from enxerto.kernel.names import BaseModelName
from enxerto.training import converters
from enxerto.training.service import BaseModels, Runs
from enxerto.training.v1 import base_model_pb2, training_run_pb2, training_service_pb2, training_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


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
