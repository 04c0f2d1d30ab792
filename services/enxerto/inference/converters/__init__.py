"""Between the typed contract and the domain; gathers field violations."""

from enxerto.inference.converters.answers import (
    classification_to_proto,
    detection_to_proto,
    embeddings_to_proto,
    segmentation_to_proto,
    stylized_to_proto,
)
from enxerto.inference.converters.deployments import (
    create_arguments,
    deployment_name,
    deployment_to_proto,
    deployments_to_proto,
    list_arguments,
    update_arguments,
    watch_arguments,
)
from enxerto.inference.converters.quality import (
    feedback_arguments,
    feedback_to_proto,
    policy_arguments,
    policy_to_proto,
    quality_arguments,
    quality_to_proto,
    sample_name,
    samples_arguments,
    samples_to_proto,
)
from enxerto.inference.converters.requests import (
    classify_arguments,
    detect_arguments,
    embed_arguments,
    segment_arguments,
    sticky_key,
    stylize_arguments,
)
from enxerto.inference.converters.streams import stream_answer, stream_error, stream_request

__all__ = [
    "classification_to_proto",
    "classify_arguments",
    "create_arguments",
    "deployment_name",
    "deployment_to_proto",
    "deployments_to_proto",
    "detect_arguments",
    "detection_to_proto",
    "embed_arguments",
    "embeddings_to_proto",
    "feedback_arguments",
    "feedback_to_proto",
    "list_arguments",
    "policy_arguments",
    "policy_to_proto",
    "quality_arguments",
    "quality_to_proto",
    "sample_name",
    "samples_arguments",
    "samples_to_proto",
    "segment_arguments",
    "segmentation_to_proto",
    "sticky_key",
    "stream_answer",
    "stream_error",
    "stream_request",
    "stylize_arguments",
    "stylized_to_proto",
    "update_arguments",
    "watch_arguments",
]
