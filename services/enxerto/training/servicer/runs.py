"""Training runs."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from enxerto.kernel.names import BaseModelName
from enxerto.runtime.paging import fitting
from enxerto.training import converters
from enxerto.training.domain import TrainingRun
from enxerto.training.service import BaseModels, Questions, Runs, WeightsImports, WeightsSupply
from enxerto.training.v1 import base_model_pb2, training_run_pb2, training_service_pb2, training_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """enxerto.training.v1.TrainingService."""

    def __init__(
        self, runs: Runs, base_models: BaseModels, questions: Questions, weights: WeightsSupply, imports: WeightsImports
    ) -> None:
        self._runs = runs
        self._base_models = base_models
        self._questions = questions
        self._weights = weights
        self._imports = imports

    async def _answer(self, run: TrainingRun) -> training_run_pb2.TrainingRun:
        return converters.run_to_proto(run, await self._runs.queue_status(run))

    async def CreateTrainingRun(
        self, request: training_service_pb2.CreateTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Accept a run."""
        new = converters.new_run(request)
        run = await self._runs.create(new.parent, new.run_id, new.spec, new.labels, request=new.request)
        return await self._answer(run)

    async def GetTrainingRun(
        self, request: training_service_pb2.GetTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Read one run."""
        return await self._answer(await self._runs.get(converters.run_name(request.name)))

    async def ListTrainingRuns(
        self, request: training_service_pb2.ListTrainingRunsRequest, context: Context
    ) -> training_service_pb2.ListTrainingRunsResponse:
        """List the runs of a project, newest first."""
        parent, page = converters.project_page(request.parent, request.page_size, request.page_token, numbered=True)
        found = await self._runs.list_page(parent, page)
        runs, token = fitting(found, [await self._answer(one) for one in found.items])
        return training_service_pb2.ListTrainingRunsResponse(training_runs=runs, next_page_token=token)

    async def CancelTrainingRun(
        self, request: training_service_pb2.CancelTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Ask a run to stop."""
        return await self._answer(await self._runs.cancel(converters.run_name(request.name)))

    async def PauseTrainingRun(
        self, request: training_service_pb2.PauseTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Stop a run at its last checkpoint."""
        return await self._answer(await self._runs.pause(converters.run_name(request.name)))

    async def ResumeTrainingRun(
        self, request: training_service_pb2.ResumeTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        """Put a paused run into the queue again."""
        return await self._answer(await self._runs.resume(converters.run_name(request.name)))

    async def WatchTrainingRun(
        self, request: training_service_pb2.WatchTrainingRunRequest, context: Context
    ) -> AsyncIterator[training_run_pb2.TrainingEvent]:
        """Stream the run's events after the cursor."""
        name, after_cursor = converters.watch(request)
        async for event in self._runs.watch(name, after_cursor):
            yield converters.event_to_proto(event)

    async def DownloadRunFile(
        self, request: training_service_pb2.DownloadRunFileRequest, context: Context
    ) -> AsyncIterator[training_service_pb2.DownloadRunFileResponse]:
        """Stream a file that a run has left."""
        async for chunk in self._runs.download(converters.run_file_name(request.name)):
            yield training_service_pb2.DownloadRunFileResponse(chunk=chunk)

    async def EstimateTrainingRun(
        self, request: training_service_pb2.EstimateTrainingRunRequest, context: Context
    ) -> AsyncIterator[training_service_pb2.EstimateTrainingRunResponse]:
        """Measure what a run would take."""
        parent, spec = converters.estimated_spec(request)
        async for found in self._questions.estimate(parent, spec):
            yield converters.estimate_to_proto(found)

    async def RecommendBaseModels(
        self, request: training_service_pb2.RecommendBaseModelsRequest, context: Context
    ) -> AsyncIterator[training_service_pb2.RecommendBaseModelsResponse]:
        """Rank base models on a snapshot's images."""
        asked = converters.recommendation(request)
        found = self._questions.recommend(asked.parent, asked.snapshot, asked.base_models, asked.max_images)
        async for one in found:
            yield converters.ranking_to_proto(one)

    async def ImportBaseModelWeights(
        self, request_iterator: AsyncIterator[training_service_pb2.ImportBaseModelWeightsRequest], context: Context
    ) -> base_model_pb2.BaseModel:
        """Store weights that were brought in by hand."""
        requests = aiter(request_iterator)
        header = converters.weights_header(await anext(requests, None))
        chunks = (converters.weights_chunk(request) async for request in requests)
        weights = await self._imports.receive(header.facts, header.sha256, header.size_bytes, chunks)
        return converters.base_model_to_proto(header.facts, weights.sha256)

    async def ListBaseModels(
        self, request: training_service_pb2.ListBaseModelsRequest, context: Context
    ) -> training_service_pb2.ListBaseModelsResponse:
        """List the base models by name."""
        found = await self._base_models.list_page(converters.catalogue_page(request), request.search)
        imported = await self._weights.digests()
        return training_service_pb2.ListBaseModelsResponse(
            base_models=[converters.base_model_to_proto(one, imported.get(one.name, "")) for one in found.items],
            next_page_token=found.next_page_token,
        )

    async def GetBaseModel(
        self, request: training_service_pb2.GetBaseModelRequest, context: Context
    ) -> base_model_pb2.BaseModel:
        """Read one base model."""
        facts = await self._base_models.get(BaseModelName.parse(request.name))
        return converters.base_model_to_proto(facts, (await self._weights.digests()).get(facts.name, ""))
