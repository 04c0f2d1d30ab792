"""The typed services: convert, call, convert."""

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from enxerto.inference import converters
from enxerto.inference.domain import Payload, Prediction
from enxerto.inference.service import Deployments, Predictions, Quality, Samples, in_order
from enxerto.inference.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    quality_pb2,
    quality_service_pb2,
    quality_service_pb2_grpc,
    vision_service_pb2,
    vision_service_pb2_grpc,
)
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import DeploymentName
from enxerto.vision.specs import Task

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """enxerto.inference.v1.DeploymentService."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    async def CreateDeployment(
        self, request: deployment_service_pb2.CreateDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        """Accept a deployment."""
        return converters.deployment_to_proto(await self._deployments.create(*converters.create_arguments(request)))

    async def GetDeployment(
        self, request: deployment_service_pb2.GetDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        """Read one deployment."""
        name = converters.deployment_name(request.name)
        return converters.deployment_to_proto(await self._deployments.get(name))

    async def ListDeployments(
        self, request: deployment_service_pb2.ListDeploymentsRequest, context: Context
    ) -> deployment_service_pb2.ListDeploymentsResponse:
        """List deployments."""
        page = await self._deployments.list(*converters.list_arguments(request))
        return converters.deployments_to_proto(page.items, page.next_page_token)

    async def UpdateDeployment(
        self, request: deployment_service_pb2.UpdateDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        """Change a deployment."""
        return converters.deployment_to_proto(await self._deployments.update(*converters.update_arguments(request)))

    async def WatchDeployment(
        self, request: deployment_service_pb2.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[deployment_service_pb2.WatchDeploymentResponse]:
        """Stream a deployment as it changes."""
        async for deployment, cursor in self._deployments.watch(*converters.watch_arguments(request)):
            message = converters.deployment_to_proto(deployment)
            yield deployment_service_pb2.WatchDeploymentResponse(deployment=message, cursor=cursor)

    async def DeleteDeployment(
        self, request: deployment_service_pb2.DeleteDeploymentRequest, context: Context
    ) -> Empty:
        """Remove a deployment."""
        await self._deployments.delete(converters.deployment_name(request.name), request.etag)
        return Empty()


@dataclass(frozen=True, slots=True)
class _StreamedCall:
    """The context of one request of a stream: the deadline is that of the stream, which ends all of them."""

    stream: Context

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> Any:
        return self.stream.invocation_metadata()


class VisionServicer(vision_service_pb2_grpc.VisionServiceServicer):
    """enxerto.inference.v1.VisionService."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions
        self._calls: dict[str, Any] = {
            "classify": self.Classify,
            "detect": self.Detect,
            "segment": self.Segment,
            "stylize": self.Stylize,
            "embed": self.Embed,
        }

    async def Classify(
        self, request: vision_service_pb2.ClassifyRequest, context: Context
    ) -> vision_service_pb2.ClassifyResponse:
        """Say what is in each image."""
        name, payload, top_k = converters.classify_arguments(request, self._predictions.max_items)
        prediction = await self._answer(name, payload, Task.CLASSIFICATION, context)
        return converters.classification_to_proto(name, prediction, top_k)

    async def Detect(
        self, request: vision_service_pb2.DetectRequest, context: Context
    ) -> vision_service_pb2.DetectResponse:
        """Find the objects in each image."""
        name, payload, threshold, most = converters.detect_arguments(request, self._predictions.max_items)
        return converters.detection_to_proto(
            await self._answer(name, payload, Task.DETECTION, context), threshold, most
        )

    async def Segment(
        self, request: vision_service_pb2.SegmentRequest, context: Context
    ) -> vision_service_pb2.SegmentResponse:
        """Say of every pixel of each image what it belongs to."""
        name, payload = converters.segment_arguments(request, self._predictions.max_items)
        return converters.segmentation_to_proto(await self._answer(name, payload, Task.SEGMENTATION, context))

    async def Stylize(
        self, request: vision_service_pb2.StylizeRequest, context: Context
    ) -> vision_service_pb2.StylizeResponse:
        """Paint each image in the style that the model has learned."""
        name, payload = converters.stylize_arguments(request, self._predictions.max_items)
        return converters.stylized_to_proto(await self._answer(name, payload, Task.STYLE, context))

    async def Embed(
        self, request: vision_service_pb2.EmbedRequest, context: Context
    ) -> vision_service_pb2.EmbedResponse:
        """Give the backbone's embedding of each image."""
        name, payload = converters.embed_arguments(request, self._predictions.max_items)
        return converters.embeddings_to_proto(await self._answer(name, payload, Task.CLASSIFICATION, context))

    async def PredictStream(
        self, requests: AsyncIterator[vision_service_pb2.PredictStreamRequest], context: Context
    ) -> AsyncIterator[vision_service_pb2.PredictStreamResponse]:
        """Answer many requests, in order."""
        one_of_many = _StreamedCall(context)

        async def answer(
            request: vision_service_pb2.PredictStreamRequest,
        ) -> vision_service_pb2.PredictStreamResponse:
            try:
                kind, message = converters.stream_request(request)
                return converters.stream_answer(request.id, kind, await self._calls[kind](message, one_of_many))
            except EnxertoError as error:
                return converters.stream_error(request.id, error)
            except Exception:
                logger.exception("unforeseen error", extra={"rpc": "PredictStream"})
                return converters.stream_error(request.id, None)

        async with contextlib.aclosing(in_order(requests, answer, self._predictions.stream_requests)) as answers:
            async for one in answers:
                yield one

    async def _answer(
        self, name: DeploymentName, payload: Payload, task: Task, context: "Context | _StreamedCall"
    ) -> Prediction:
        return await self._predictions.answer(
            name,
            payload,
            "images[{}].content",
            context.time_remaining(),
            task=task,
            sticky_key=converters.sticky_key(context.invocation_metadata()),
        )


class QualityServicer(quality_service_pb2_grpc.QualityServiceServicer):
    """enxerto.inference.v1.QualityService."""

    def __init__(self, quality: Quality, samples: Samples) -> None:
        self._quality = quality
        self._samples = samples

    async def GetDeploymentQuality(
        self, request: quality_service_pb2.GetDeploymentQualityRequest, context: Context
    ) -> quality_pb2.DeploymentQuality:
        """Read how well a deployment answers."""
        return converters.quality_to_proto(await self._quality.read(*converters.quality_arguments(request)))

    async def SubmitFeedback(
        self, request: quality_service_pb2.SubmitFeedbackRequest, context: Context
    ) -> quality_service_pb2.SubmitFeedbackResponse:
        """Store true labels."""
        return converters.feedback_to_proto(await self._quality.submit(*converters.feedback_arguments(request)))

    async def GetSamplingPolicy(
        self, request: quality_service_pb2.GetSamplingPolicyRequest, context: Context
    ) -> quality_pb2.SamplingPolicy:
        """Read which images are kept."""
        name = DeploymentName.parse(request.deployment, "deployment")
        return converters.policy_to_proto(await self._samples.policy(name))

    async def UpdateSamplingPolicy(
        self, request: quality_service_pb2.UpdateSamplingPolicyRequest, context: Context
    ) -> quality_pb2.SamplingPolicy:
        """Change which images are kept."""
        return converters.policy_to_proto(await self._samples.set_policy(converters.policy_arguments(request)))

    async def ListSamples(
        self, request: quality_service_pb2.ListSamplesRequest, context: Context
    ) -> quality_service_pb2.ListSamplesResponse:
        """List what was kept."""
        page = await self._samples.list(*converters.samples_arguments(request))
        return converters.samples_to_proto(page.items, page.next_page_token)

    async def DownloadSample(
        self, request: quality_service_pb2.DownloadSampleRequest, context: Context
    ) -> quality_service_pb2.DownloadSampleResponse:
        """Read an image that was kept."""
        content = await self._samples.download(converters.sample_name(request.name))
        return quality_service_pb2.DownloadSampleResponse(content=content)

    async def DeleteSample(self, request: quality_service_pb2.DeleteSampleRequest, context: Context) -> Empty:
        """Remove an image that was kept."""
        await self._samples.delete(converters.sample_name(request.name))
        return Empty()
