"""What a user decides about a deployment, read from the contract; gathers field violations."""

from collections.abc import Callable, Iterable
from typing import Any

from enxerto.inference.domain import MAX_REPLICAS, MAX_TRAFFIC_PERCENT, MAX_TRAFFIC_TARGETS, TrafficShare
from enxerto.inference.v1 import deployment_pb2
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import VersionReference

_MAX_LABELS = 64

_Read = Callable[[deployment_pb2.Deployment, Violations], Any]


def spec_fields(message: deployment_pb2.Deployment, violations: Violations) -> dict[str, Any]:
    """Fields of a `DeploymentSpec`; what is not set has its default."""
    return {field: read(message, violations) for field, read in _READERS.items()}


def changed_fields(message: deployment_pb2.Deployment, mask: Iterable[str], violations: Violations) -> dict[str, Any]:
    """Fields of a `SpecChange`. Without a mask every field that is set changes."""
    paths = set(mask)
    if "*" in paths:
        paths = set(_READERS)
    for path in sorted(paths - set(_READERS)):
        violations.add("update_mask", f"{path!r} is not one of {', '.join(_READERS)}")
    if not paths:
        paths = {descriptor.name for descriptor, _ in message.ListFields()} & set(_READERS)
    return {field: read(message, violations) for field, read in _READERS.items() if field in paths}


def _model_version(message: deployment_pb2.Deployment, violations: Violations) -> VersionReference | None:
    return VersionReference.check(message.model_version, "deployment.model_version", violations)


def _replicas(message: deployment_pb2.Deployment, violations: Violations) -> int:
    if not 0 <= message.replicas <= MAX_REPLICAS:
        violations.add("deployment.replicas", f"must be in 1..{MAX_REPLICAS}")
    return message.replicas or 1


def _labels(message: deployment_pb2.Deployment, violations: Violations) -> dict[str, str]:
    labels = dict(message.labels)
    if len(labels) > _MAX_LABELS or any(not 1 <= len(key) <= 63 or len(value) > 256 for key, value in labels.items()):
        rule = f"at most {_MAX_LABELS}; keys of 1 to 63 characters, values of at most 256"
        violations.add("deployment.labels", rule)
    return labels


def _traffic(message: deployment_pb2.Deployment, violations: Violations) -> tuple[TrafficShare, ...]:
    if len(message.traffic) > MAX_TRAFFIC_TARGETS:
        violations.add("deployment.traffic", f"may have at most {MAX_TRAFFIC_TARGETS} targets")
    shares = []
    for position, target in enumerate(message.traffic):
        field = f"deployment.traffic[{position}]"
        reference = VersionReference.check(target.model_version, f"{field}.model_version", violations)
        if not 1 <= target.percent <= MAX_TRAFFIC_PERCENT:
            violations.add(f"{field}.percent", f"must be in 1..{MAX_TRAFFIC_PERCENT}, is {target.percent}")
        if reference is not None:
            shares.append(TrafficShare(reference, target.percent))
    return tuple(shares)


_READERS: dict[str, _Read] = {
    "model_version": _model_version,
    "replicas": _replicas,
    "labels": _labels,
    "traffic": _traffic,
}
