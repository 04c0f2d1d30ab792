"""Models, versions and deployments."""

from typing import Any

from enxerto.client import _results as results
from enxerto.client._converters.shared import enum_name, failure, metrics, state, task, time
from enxerto.client._settings import read_fields
from enxerto.inference.v1 import deployment_pb2
from enxerto.registry.v1 import model_pb2, model_version_pb2


def model(message: model_pb2.Model) -> results.Model:
    """Convert a model."""
    return results.Model(
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        task=task(message.task),
        aliases=dict(message.aliases),
        latest_version=message.latest_version,
        create_time=time(message, "create_time"),
        update_time=time(message, "update_time"),
        etag=message.etag,
    )


def version(message: model_version_pb2.ModelVersion) -> results.Version:
    """Convert a version."""
    parity, lineage = message.parity, message.lineage
    return results.Version(
        name=message.name,
        state=state(results.VersionState, model_version_pb2.ModelVersion.State, message.state),
        task=task(message.task),
        class_names=tuple(message.label_map.names),
        metrics=metrics(message.metrics),
        parity=results.Parity(
            parity.max_abs_difference, parity.agreement, parity.sample_count, tuple(parity.batch_sizes)
        )
        if message.HasField("parity")
        else None,
        lineage=results.Lineage(
            snapshot=lineage.snapshot,
            snapshot_digest=lineage.snapshot_digest,
            base_model=lineage.base_model,
            weights_digest=lineage.weights_digest,
            weights_source=lineage.weights_source,
            licence=lineage.licence,
            training_run=lineage.training_run,
        ),
        artifacts=tuple(
            results.Artifact(
                filename=artifact.filename,
                role=enum_name(model_version_pb2.Artifact.Role, artifact.role),
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
                media_type=artifact.media_type,
            )
            for artifact in message.artifacts
        ),
        create_time=time(message, "create_time"),
    )


def deployment(message: deployment_pb2.Deployment) -> results.Deployment:
    """Convert a deployment."""
    return results.Deployment(
        name=message.name,
        model_version=message.model_version,
        replicas=message.replicas,
        state=state(results.DeploymentState, deployment_pb2.Deployment.State, message.state),
        serving_version=message.serving_version,
        target_version=message.target_version,
        error=failure(message),
        traffic=tuple(
            results.TrafficTarget(one.model_version, one.percent, one.serving_version, one.target_version, failure(one))
            for one in message.traffic
        ),
        shadow=_shadow(message.shadow) if message.HasField("shadow") else None,
        settings=_settings(message),
        create_time=time(message, "create_time"),
        update_time=time(message, "update_time"),
    )


def _settings(message: deployment_pb2.Deployment) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "device": enum_name(deployment_pb2.Deployment.Device, message.device),
        "placement": enum_name(deployment_pb2.Deployment.Placement, message.placement),
    }
    if message.pinned:
        settings["pinned"] = True
    for group in ("autoscaling", "batching", "response_cache"):
        if message.HasField(group):
            settings[group] = read_fields(getattr(message, group))
    if message.default_priority:
        settings["default_priority"] = message.default_priority
    if message.warm_up_batch_sizes:
        settings["warm_up_batch_sizes"] = list(message.warm_up_batch_sizes)
    return settings


def _shadow(message: deployment_pb2.Shadow) -> results.Shadow:
    found = message.comparison
    return results.Shadow(
        message.model_version,
        message.percent,
        message.serving_version,
        message.target_version,
        failure(message),
        found.image_count,
        found.agreement if found.image_count else None,
        found.dropped_count,
        found.failed_count,
    )
