"""Requests of the vision service, read; gathers field violations."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from enxerto.inference.domain import AnswerForm, Payload, PayloadKind
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName
from enxerto.vision.contracts import EMBEDDING, output_names
from enxerto.vision.specs import Task

STICKY_KEY = "x-enxerto-sticky-key"
"""Metadata: requests of the same key are answered by the same version of a split deployment."""

_MAX_STICKY_CHARACTERS = 256
_DEFAULT_TOP_K = 5
_FORMS = {
    vision_pb2.MASK_FORMAT_UNSPECIFIED: AnswerForm.PICTURES,
    vision_pb2.MASK_FORMAT_PNG: AnswerForm.PICTURES,
    vision_pb2.MASK_FORMAT_RLE: AnswerForm.RLE,
    vision_pb2.MASK_FORMAT_POLYGONS: AnswerForm.POLYGONS,
}


class _Request(Protocol):
    @property
    def deployment(self) -> str: ...
    @property
    def images(self) -> Sequence[vision_pb2.Image]: ...
    @property
    def priority(self) -> int: ...


def sticky_key(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The key of a request, or nothing; one that is longer than 256 characters counts by its first 256."""
    for key, value in metadata or ():
        if key == STICKY_KEY:
            text = value if isinstance(value, str) else value.decode("utf-8", "replace")
            return text[:_MAX_STICKY_CHARACTERS]
    return ""


def classify_arguments(
    request: vision_service_pb2.ClassifyRequest, max_items: int
) -> tuple[DeploymentName, Payload, int]:
    """Deployment, images and number of classes of a Classify call."""
    violations = Violations()
    if request.top_k < 0:
        violations.add("top_k", "must not be negative")
    name, payload = _images(request, max_items, violations)
    # Not the embedding, which would be computed and carried for nothing.
    return name, replace(payload, outputs=output_names(Task.CLASSIFICATION)), request.top_k or _DEFAULT_TOP_K


def detect_arguments(
    request: vision_service_pb2.DetectRequest, max_items: int
) -> tuple[DeploymentName, Payload, float | None, int]:
    """Deployment, images, least score (None: the version's own) and most objects (0: all) of a Detect call."""
    violations = Violations()
    threshold = request.score_threshold if request.HasField("score_threshold") else None
    if threshold is not None and not 0 <= threshold <= 1:
        violations.add("score_threshold", f"must be in [0, 1], is {threshold}")
    if request.max_objects < 0:
        violations.add("max_objects", "must not be negative")
    name, payload = _images(request, max_items, violations)
    return name, payload, threshold, request.max_objects


def segment_arguments(request: vision_service_pb2.SegmentRequest, max_items: int) -> tuple[DeploymentName, Payload]:
    """Deployment and images of a Segment call."""
    violations = Violations()
    form = _FORMS.get(request.format)
    if form is None:
        violations.add("format", f"{request.format} is not a mask format")
    return _images(request, max_items, violations, form or AnswerForm.PICTURES)


def stylize_arguments(request: vision_service_pb2.StylizeRequest, max_items: int) -> tuple[DeploymentName, Payload]:
    """Deployment and images of a Stylize call."""
    name, payload = _images(request, max_items, Violations())
    # Painted pictures are as large as those that were sent: each request answers for its own.
    return name, replace(payload, alone=True)


def embed_arguments(request: vision_service_pb2.EmbedRequest, max_items: int) -> tuple[DeploymentName, Payload]:
    """Deployment and images of an Embed call."""
    name, payload = _images(request, max_items, Violations())
    return name, replace(payload, outputs=(EMBEDDING.name,))


def _images(
    request: _Request, max_items: int, violations: Violations, form: AnswerForm = AnswerForm.PICTURES
) -> tuple[DeploymentName, Payload]:
    name = DeploymentName.check(request.deployment, "deployment", violations)
    if not 1 <= len(request.images) <= max_items:
        violations.add("images", f"must have 1 to {max_items} images, has {len(request.images)}")
    if request.priority < 0:
        violations.add("priority", f"must not be negative, is {request.priority}")
    violations.raise_if_any()
    assert name is not None
    images = tuple(image.content for image in request.images)
    return name, Payload(PayloadKind.ENCODED, images, len(images), form=form, priority=request.priority)
