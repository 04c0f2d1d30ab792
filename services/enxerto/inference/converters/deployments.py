"""Deployments, between the typed contract and the domain."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc import code_pb2, error_details_pb2, status_pb2

from enxerto.inference.converters.specs import changed_fields, spec_fields
from enxerto.inference.domain import (
    Autoscaling,
    Batching,
    Comparison,
    Deployment,
    DeploymentSpec,
    Fault,
    Rollout,
    ShadowShare,
    State,
)
from enxerto.inference.service import SpecChange
from enxerto.inference.v1 import deployment_pb2, deployment_service_pb2
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, ProjectName, check_id
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.runtime.timestamps import duration, timestamp

_MAX_REQUEST_ID = 128


def deployment_name(text: str) -> DeploymentName:
    """Parse the name of a deployment."""
    return DeploymentName.parse(text)


def create_arguments(
    request: deployment_service_pb2.CreateDeploymentRequest,
) -> tuple[DeploymentName, DeploymentSpec, str]:
    """Name, spec and request id of a create call."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    identity = check_id(request.deployment_id, "deployment_id", violations)
    fields = spec_fields(request.deployment, violations)
    if len(request.request_id) > _MAX_REQUEST_ID:
        violations.add("request_id", f"must have at most {_MAX_REQUEST_ID} characters")
    violations.raise_if_any()
    assert parent is not None
    name = DeploymentName(parent.project, identity)
    return name, DeploymentSpec(**fields), request.request_id


def list_arguments(request: deployment_service_pb2.ListDeploymentsRequest) -> tuple[ProjectName, PageRequest]:
    """Parent and page of a list call."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    assert parent is not None
    return parent, page


def watch_arguments(request: deployment_service_pb2.WatchDeploymentRequest) -> tuple[DeploymentName, int]:
    """Name and cursor of a watch."""
    violations = Violations()
    name = DeploymentName.check(request.name, "name", violations)
    if request.after_cursor < 0:
        violations.add("after_cursor", "must not be negative")
    violations.raise_if_any()
    assert name is not None
    return name, request.after_cursor


def update_arguments(
    request: deployment_service_pb2.UpdateDeploymentRequest,
) -> tuple[DeploymentName, SpecChange, str]:
    """Name, change and etag of an update call. Without a mask every field that is set changes."""
    violations = Violations()
    message = request.deployment
    name = DeploymentName.check(message.name, "deployment.name", violations)
    fields = changed_fields(message, request.update_mask.paths, violations)
    violations.raise_if_any()
    assert name is not None
    return name, SpecChange(**fields), message.etag


def deployment_to_proto(deployment: Deployment) -> deployment_pb2.Deployment:
    """A deployment as callers see it."""
    spec = deployment.spec
    return deployment_pb2.Deployment(
        name=str(deployment.name),
        model_version=str(spec.model_version),
        replicas=spec.replicas,
        state=_state(deployment.state),
        serving_version=str(deployment.serving or ""),
        target_version=str(deployment.target or ""),
        error=_status(deployment.fault) if deployment.fault else None,
        labels=spec.labels,
        traffic=[
            deployment_pb2.TrafficTarget(
                model_version=str(share.model_version),
                percent=share.percent,
                **_outcome(deployment.companion(share.model_version)),
            )
            for share in spec.traffic
        ],
        autoscaling=_autoscaling(spec.autoscaling) if spec.autoscaling else None,
        batching=_batching(spec.batching) if spec.batching != Batching() else None,
        device=deployment_pb2.Deployment.Device.Value(f"DEVICE_{spec.device.value}"),
        warm_up_batch_sizes=spec.warm_up_batch_sizes,
        shadow=_shadow(spec.shadow, deployment) if spec.shadow else None,
        placement=deployment_pb2.Deployment.Placement.Value(f"PLACEMENT_{spec.placement.value}"),
        pinned=spec.pinned,
        default_priority=spec.default_priority,
        response_cache=deployment_pb2.ResponseCache(max_bytes=spec.response_cache) if spec.response_cache else None,
        create_time=timestamp(deployment.create_time),
        update_time=timestamp(deployment.update_time),
        etag=deployment.etag,
    )


def deployments_to_proto(
    deployments: Sequence[Deployment], next_page_token: str
) -> deployment_service_pb2.ListDeploymentsResponse:
    """A page of deployments."""
    messages = [deployment_to_proto(deployment) for deployment in deployments]
    return deployment_service_pb2.ListDeploymentsResponse(deployments=messages, next_page_token=next_page_token)


def _autoscaling(bounds: Autoscaling) -> deployment_pb2.Autoscaling:
    return deployment_pb2.Autoscaling(
        min_replicas=bounds.min_replicas,
        max_replicas=bounds.max_replicas,
        target_ongoing_batches=bounds.target_ongoing_batches,
        upscale_delay=duration(bounds.upscale_delay_s),
        downscale_delay=duration(bounds.downscale_delay_s),
    )


def _batching(batching: Batching) -> deployment_pb2.Batching:
    delay_s = batching.max_delay_s
    delay = None if delay_s is None else duration(delay_s)
    return deployment_pb2.Batching(
        max_size=batching.max_size or 0, max_delay=delay, preferred_sizes=batching.preferred_sizes
    )


def _shadow(share: ShadowShare, deployment: Deployment) -> deployment_pb2.Shadow:
    found = deployment.comparison
    return deployment_pb2.Shadow(
        model_version=str(share.model_version),
        percent=share.percent,
        comparison=_comparison(found) if found else None,
        **_outcome(deployment.companion(share.model_version)),
    )


def _comparison(found: Comparison) -> deployment_pb2.ShadowComparison:
    return deployment_pb2.ShadowComparison(
        main_version=str(found.main),
        shadow_version=str(found.shadow),
        image_count=found.images,
        agreement=found.agreement,
        dropped_count=found.dropped,
        failed_count=found.failed,
    )


def _outcome(rollout: Rollout | None) -> dict[str, Any]:
    """What has become of a version beside the main one."""
    if rollout is None:
        return {}
    return {
        "serving_version": str(rollout.serving or ""),
        "target_version": str(rollout.target or ""),
        "error": _status(rollout.fault) if rollout.fault else None,
    }


def _state(state: State) -> deployment_pb2.Deployment.State.ValueType:
    return deployment_pb2.Deployment.State.Value(f"STATE_{state.value}")


def _status(fault: Fault) -> status_pb2.Status:
    detail = AnyProto()
    detail.Pack(error_details_pb2.ErrorInfo(reason=fault.reason, domain="enxerto"))
    return status_pb2.Status(code=code_pb2.Code.Value(fault.kind.value), message=fault.message, details=[detail])
