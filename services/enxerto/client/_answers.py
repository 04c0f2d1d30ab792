"""Answers to images, for each task."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from enxerto.client import _converters, _images, _results
from enxerto.client._deployments import DeploymentCalls
from enxerto.inference.v1 import vision_pb2, vision_service_pb2

T = TypeVar("T")

# Paintings come back as large as the pictures, and have to fit one message.
_PAINTED = 1
_STICKY_KEY = "x-enxerto-sticky-key"

Images = Sequence[Path | str | bytes]
"""Paths, or the bytes of JPEG, PNG, WebP or BMP files; sent in as few requests as the limits allow."""


class AnswerCalls(DeploymentCalls):
    """Images in, answers out.

    Bad images raise InvalidArgumentError, which names every one of them. Asking a deployment of another task raises
    FailedPreconditionError with the reason TASK_MISMATCH. Where a deployment's requests are split between versions,
    requests of one `sticky_key` are answered by one version. Of what waits for a deployment, requests of `priority` 1
    go first; 0 is the deployment's default.
    """

    def classify(
        self, deployment: str, images: Images, *, top_k: int = 5, sticky_key: str = "", priority: int = 0
    ) -> list[_results.Prediction]:
        """Say what is in each image.

        Args:
            deployment: the deployment to ask.
            images: paths or bytes.
            top_k: classes to return for each image.
            sticky_key: see above.
            priority: see above.
        """
        request = vision_service_pb2.ClassifyRequest(
            deployment=self._names.deployment(deployment), top_k=top_k, priority=priority
        )
        return self._answers(_sticky(self._stubs.vision.Classify, sticky_key), request, images, _converters.predictions)

    def detect(
        self,
        deployment: str,
        images: Images,
        *,
        score_threshold: float | None = None,
        max_objects: int = 0,
        sticky_key: str = "",
        priority: int = 0,
    ) -> list[_results.Detection]:
        """Find the objects in each image.

        Args:
            deployment: the deployment to ask.
            images: paths or bytes.
            score_threshold: least score, in [0, 1]; the version's own of each class when left out.
            max_objects: to return for each image; 0 is all.
            sticky_key: see above.
            priority: see above.
        """
        request = vision_service_pb2.DetectRequest(
            deployment=self._names.deployment(deployment),
            score_threshold=score_threshold,
            max_objects=max_objects,
            priority=priority,
        )
        return self._answers(_sticky(self._stubs.vision.Detect, sticky_key), request, images, _converters.detections)

    def segment(
        self, deployment: str, images: Images, *, mask_format: str = "PNG", sticky_key: str = "", priority: int = 0
    ) -> list[_results.Segmentation]:
        """Say of every pixel of each image what it belongs to.

        Args:
            deployment: the deployment to ask.
            images: paths or bytes.
            mask_format: PNG, RLE or POLYGONS.
            sticky_key: see above.
            priority: see above.

        Raises:
            ValueError: another format.
        """
        known = vision_pb2.MaskFormat.items()
        formats = {name.removeprefix("MASK_FORMAT_"): value for name, value in known if value}
        if mask_format.upper() not in formats:
            raise ValueError(f"mask_format {mask_format!r} is not one of {', '.join(formats)}")
        request = vision_service_pb2.SegmentRequest(
            deployment=self._names.deployment(deployment), format=formats[mask_format.upper()], priority=priority
        )
        return self._answers(
            _sticky(self._stubs.vision.Segment, sticky_key), request, images, _converters.segmentations
        )

    def stylize(
        self, deployment: str, images: Images, *, sticky_key: str = "", priority: int = 0
    ) -> list[_results.StylizedImage]:
        """Paint each image in the style that the model has learned.

        Args:
            deployment: the deployment to ask.
            images: paths or bytes.
            sticky_key: see above.
            priority: see above.
        """
        request = vision_service_pb2.StylizeRequest(deployment=self._names.deployment(deployment), priority=priority)
        send = _sticky(self._stubs.vision.Stylize, sticky_key)
        return self._answers(send, request, images, _converters.stylized, most=_PAINTED)

    def embed(self, deployment: str, images: Images, *, priority: int = 0) -> list[_results.Embedding]:
        """Give the backbone's embedding of each image. Classification only.

        A version that was registered before graphs gave embeddings raises FailedPreconditionError with the reason
        NO_EMBEDDING.

        Args:
            deployment: the deployment to ask.
            images: paths or bytes.
            priority: see above.
        """
        request = vision_service_pb2.EmbedRequest(deployment=self._names.deployment(deployment), priority=priority)
        return self._answers(self._stubs.vision.Embed, request, images, _converters.embeddings)

    def _answers(
        self,
        send: Callable[..., Any],
        request: Any,
        images: Images,
        convert: Callable[[Any], list[T]],
        most: int = _images.MAX_IMAGES,
    ) -> list[T]:
        answers: list[T] = []
        for batch in _images.batches(images, most):
            del request.images[:]
            request.images.extend(vision_pb2.Image(content=content) for content in batch.contents)
            with batch.blaming():
                answers += convert(self._call(send, request))
        return answers


def _sticky(send: Callable[..., Any], key: str) -> Callable[..., Any]:
    if not key:
        return send

    def sent(request: Any, *, metadata: Sequence[tuple[str, str]], **options: Any) -> Any:
        return send(request, metadata=[*metadata, (_STICKY_KEY, key)], **options)

    return sent
