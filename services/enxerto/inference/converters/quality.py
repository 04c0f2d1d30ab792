"""Quality, between the typed contract and the domain."""

import math
from collections.abc import Sequence
from datetime import timedelta

from enxerto.inference.domain import (
    DEFAULT_SAMPLES_BYTES,
    MAX_SAMPLES,
    MAX_SAMPLES_BYTES,
    DeploymentQuality,
    Feedback,
    FeedbackRecord,
    LiveAccuracy,
    Sample,
    SamplingPolicy,
    VersionQuality,
)
from enxerto.inference.v1 import quality_pb2, quality_service_pb2
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, SampleName
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.runtime.timestamps import timestamp

_MAX_FEEDBACK = 1000
_MAX_LABEL = 256
_DEFAULT_WINDOW = timedelta(days=7)
_MAX_DAYS = 10_000


def sample_name(text: str) -> SampleName:
    """Parse the name of a sample."""
    return SampleName.parse(text)


def quality_arguments(
    request: quality_service_pb2.GetDeploymentQualityRequest,
) -> tuple[DeploymentName, timedelta]:
    """Deployment and window of a quality call."""
    violations = Violations()
    name = DeploymentName.check(request.deployment, "deployment", violations)
    window = _DEFAULT_WINDOW
    if request.HasField("window"):
        if not 0 < request.window.seconds <= _MAX_DAYS * 86_400:
            violations.add("window", f"must be from a second to {_MAX_DAYS} days")
        else:
            window = timedelta(seconds=request.window.seconds)
    violations.raise_if_any()
    assert name is not None
    return name, window


def feedback_arguments(
    request: quality_service_pb2.SubmitFeedbackRequest,
) -> tuple[DeploymentName, list[Feedback]]:
    """Deployment and true labels of a feedback call."""
    violations = Violations()
    name = DeploymentName.check(request.deployment, "deployment", violations)
    if not 1 <= len(request.feedback) <= _MAX_FEEDBACK:
        violations.add("feedback", f"must have 1 to {_MAX_FEEDBACK} entries, has {len(request.feedback)}")
    for index, one in enumerate(request.feedback[:_MAX_FEEDBACK]):
        if not 1 <= len(one.label) <= _MAX_LABEL:
            violations.add(f"feedback[{index}].label", f"must have 1 to {_MAX_LABEL} characters")
    violations.raise_if_any()
    assert name is not None
    return name, [Feedback(one.prediction_id, one.image_index, one.label) for one in request.feedback]


def policy_arguments(request: quality_service_pb2.UpdateSamplingPolicyRequest) -> SamplingPolicy:
    """The policy of an update call."""
    violations = Violations()
    message = request.policy
    name = DeploymentName.check(message.deployment, "policy.deployment", violations)
    if not 0 <= message.max_samples <= MAX_SAMPLES:
        violations.add("policy.max_samples", f"must be in 0..{MAX_SAMPLES}")
    if not 0 <= message.max_size_bytes <= MAX_SAMPLES_BYTES:
        violations.add("policy.max_size_bytes", f"must be in 0..{MAX_SAMPLES_BYTES}")
    if not 0 <= message.uncertain_below <= 1:
        violations.add("policy.uncertain_below", "must be in [0, 1]")
    if not (message.drifted_beyond >= 0 and math.isfinite(message.drifted_beyond)):
        violations.add("policy.drifted_beyond", "must not be negative")
    if message.max_samples > 0 and not (message.uncertain_below or message.drifted_beyond):
        violations.add("policy", "keeps nothing without uncertain_below or drifted_beyond")
    violations.raise_if_any()
    assert name is not None
    return SamplingPolicy(
        name,
        message.max_samples,
        message.max_size_bytes or DEFAULT_SAMPLES_BYTES,
        message.uncertain_below,
        message.drifted_beyond,
    )


def samples_arguments(request: quality_service_pb2.ListSamplesRequest) -> tuple[DeploymentName, PageRequest]:
    """Parent and page of a list call."""
    violations = Violations()
    name = DeploymentName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    assert name is not None
    return name, page


def quality_to_proto(quality: DeploymentQuality) -> quality_pb2.DeploymentQuality:
    """How well a deployment answers, as callers see it."""
    return quality_pb2.DeploymentQuality(
        deployment=str(quality.deployment),
        versions=map(_version, quality.versions),
        accuracies=map(_accuracy, quality.accuracies),
        sample_count=quality.samples,
        sample_size_bytes=quality.samples_bytes,
    )


def _version(quality: VersionQuality) -> quality_pb2.VersionQuality:
    return quality_pb2.VersionQuality(
        model_version=str(quality.version),
        observed_image_count=quality.images,
        class_shares=[
            quality_pb2.ClassShare(label=label, index=index, share=share)
            for label, index, share in quality.class_shares
        ],
        confidence_shares=quality.confidence_shares,
        embedding_drift=quality.drift,
        held_out_drift=quality.held_out_drift,
        drifted=quality.drifted,
    )


def _accuracy(accuracy: LiveAccuracy) -> quality_pb2.LiveAccuracy:
    return quality_pb2.LiveAccuracy(
        model_version=str(accuracy.version),
        feedback_count=accuracy.feedback,
        correct_count=accuracy.correct,
        unknown_label_count=accuracy.unknown_labels,
        accuracy=accuracy.correct / accuracy.feedback,
    )


def feedback_to_proto(records: Sequence[FeedbackRecord]) -> quality_service_pb2.SubmitFeedbackResponse:
    """What became of feedback."""
    return quality_service_pb2.SubmitFeedbackResponse(
        correct_count=sum(record.correct for record in records),
        unknown_label_count=sum(not record.known for record in records),
    )


def policy_to_proto(policy: SamplingPolicy) -> quality_pb2.SamplingPolicy:
    """A policy as callers see it."""
    return quality_pb2.SamplingPolicy(
        deployment=str(policy.deployment),
        max_samples=policy.max_samples,
        max_size_bytes=policy.max_bytes,
        uncertain_below=policy.uncertain_below,
        drifted_beyond=policy.drifted_beyond,
        update_time=timestamp(policy.update_time) if policy.update_time else None,
    )


def samples_to_proto(samples: Sequence[Sample], next_page_token: str) -> quality_service_pb2.ListSamplesResponse:
    """A page of samples."""
    return quality_service_pb2.ListSamplesResponse(samples=map(_sample, samples), next_page_token=next_page_token)


def _sample(sample: Sample) -> quality_pb2.Sample:
    return quality_pb2.Sample(
        name=str(sample.name),
        reason=quality_pb2.Sample.Reason.Value(f"REASON_{sample.reason.value}"),
        model_version=str(sample.version),
        predicted_label=sample.predicted_label,
        confidence=sample.confidence,
        embedding_distance=sample.distance,
        true_label=sample.true_label,
        size_bytes=sample.size_bytes,
        sha256=sample.sha256,
        create_time=timestamp(sample.create_time),
    )
