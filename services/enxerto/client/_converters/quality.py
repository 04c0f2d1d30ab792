"""How well deployments answer, and what they kept for labelling."""

from enxerto.client import _results as results
from enxerto.client._converters.shared import enum_name, time
from enxerto.inference.v1 import quality_pb2


def quality(message: quality_pb2.DeploymentQuality) -> results.Quality:
    """Convert how well a deployment answers."""
    return results.Quality(
        message.deployment,
        tuple(map(_version, message.versions)),
        tuple(
            results.LiveAccuracy(one.model_version, one.accuracy, one.feedback_count, one.unknown_label_count)
            for one in message.accuracies
        ),
        message.sample_count,
        message.sample_size_bytes,
    )


def _version(message: quality_pb2.VersionQuality) -> results.VersionQuality:
    return results.VersionQuality(
        model_version=message.model_version,
        observed_images=message.observed_image_count,
        class_shares=tuple(results.ClassShare(one.label, one.index, one.share) for one in message.class_shares),
        confidence_shares=tuple(message.confidence_shares),
        embedding_drift=message.embedding_drift if message.HasField("embedding_drift") else None,
        held_out_drift=message.held_out_drift if message.HasField("held_out_drift") else None,
        drifted=message.drifted,
    )


def sampling_policy(message: quality_pb2.SamplingPolicy) -> results.SamplingPolicy:
    """Convert a policy."""
    return results.SamplingPolicy(
        message.deployment,
        message.max_samples,
        message.max_size_bytes,
        message.uncertain_below,
        message.drifted_beyond,
    )


def sample(message: quality_pb2.Sample) -> results.Sample:
    """Convert what is known of a sample."""
    return results.Sample(
        name=message.name,
        reason=enum_name(quality_pb2.Sample.Reason, message.reason),
        model_version=message.model_version,
        predicted_label=message.predicted_label,
        confidence=message.confidence,
        embedding_distance=message.embedding_distance if message.HasField("embedding_distance") else None,
        true_label=message.true_label,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        create_time=time(message, "create_time"),
    )
