"""Frames in, answers out, on one stream."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc

from enxerto.client import _converters, _results
from enxerto.client._errors import EnxertoError, from_rpc_error, from_status
from enxerto.client._quality import QualityCalls
from enxerto.inference.v1 import vision_pb2, vision_service_pb2

T = TypeVar("T")

Frames = Iterable[Path | str | bytes]
"""Paths or bytes, read one by one as the service has room for them; may be endless."""


class StreamCalls(QualityCalls):
    """Many images of one deployment, one after the other, without waiting for each answer.

    Answers come in the order of the images. Where an image has no answer its error comes instead of it, and the stream
    goes on; what ends the stream itself is raised. Closing the iterator cancels what is under way. Of what waits for
    the deployment, images of `priority` 1 go first; 0 is the deployment's default.
    """

    def classify_stream(
        self, deployment: str, frames: Frames, *, top_k: int = 5, priority: int = 0, timeout_s: float | None = None
    ) -> Iterator[_results.Prediction | EnxertoError]:
        """Say what is in each image.

        Args:
            deployment: the deployment to ask.
            frames: paths or bytes.
            top_k: classes to return for each image.
            priority: see above.
            timeout_s: of the whole stream; none by default.
        """
        name = self._names.deployment(deployment)

        def ask(image: vision_pb2.Image) -> vision_service_pb2.PredictStreamRequest:
            request = vision_service_pb2.ClassifyRequest(
                deployment=name, images=[image], top_k=top_k, priority=priority
            )
            return vision_service_pb2.PredictStreamRequest(classify=request)

        return self._stream(frames, ask, lambda answer: _converters.predictions(answer.classify), timeout_s)

    def detect_stream(
        self,
        deployment: str,
        frames: Frames,
        *,
        score_threshold: float | None = None,
        max_objects: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[_results.Detection | EnxertoError]:
        """Find the objects in each image.

        Args:
            deployment: the deployment to ask.
            frames: paths or bytes.
            score_threshold: least score, in [0, 1]; the version's own of each class when left out.
            max_objects: to return for each image; 0 is all.
            priority: see above.
            timeout_s: of the whole stream; none by default.
        """
        name = self._names.deployment(deployment)

        def ask(image: vision_pb2.Image) -> vision_service_pb2.PredictStreamRequest:
            request = vision_service_pb2.DetectRequest(
                deployment=name,
                images=[image],
                score_threshold=score_threshold,
                max_objects=max_objects,
                priority=priority,
            )
            return vision_service_pb2.PredictStreamRequest(detect=request)

        return self._stream(frames, ask, lambda answer: _converters.detections(answer.detect), timeout_s)

    def _stream(
        self,
        frames: Frames,
        ask: Callable[[vision_pb2.Image], vision_service_pb2.PredictStreamRequest],
        convert: Callable[[Any], list[T]],
        timeout_s: float | None,
    ) -> Iterator[T | EnxertoError]:
        images = (frame if isinstance(frame, bytes) else Path(frame).read_bytes() for frame in frames)
        requests = (ask(vision_pb2.Image(content=content)) for content in images)
        call = self._stubs.vision.PredictStream(requests, timeout=timeout_s)
        try:
            for answer in call:
                if answer.WhichOneof("response") == "error":
                    yield from_status(answer.error)
                else:
                    yield from convert(answer)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
