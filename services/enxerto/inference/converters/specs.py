"""What a user decides about a deployment, read from the contract; gathers field violations."""

from collections.abc import Callable, Iterable
from typing import Any

from enxerto.inference.domain import (
    DEFAULT_PRIORITY,
    MAX_ITEMS,
    MAX_REPLICAS,
    MAX_TRAFFIC_PERCENT,
    MAX_TRAFFIC_TARGETS,
    Autoscaling,
    Batching,
    Device,
    Placement,
    ShadowShare,
    TrafficShare,
)
from enxerto.inference.v1 import deployment_pb2
from enxerto.kernel.errors import Violations
from enxerto.kernel.names import VersionReference

_MAX_LABELS = 64
_MAX_BATCH = 4096
_MAX_CACHE_BYTES = 2**34
_MAX_PREFERRED = 8
_MAX_WARM_UPS = 8
_TARGET_ONGOING = 1.0
_UPSCALE_S = 30.0
_DOWNSCALE_S = 600.0
_DEVICES = {
    deployment_pb2.Deployment.DEVICE_UNSPECIFIED: Device.CPU,
    deployment_pb2.Deployment.DEVICE_CPU: Device.CPU,
    deployment_pb2.Deployment.DEVICE_GPU: Device.GPU,
}
_PLACEMENTS = {
    deployment_pb2.Deployment.PLACEMENT_UNSPECIFIED: Placement.DEDICATED,
    deployment_pb2.Deployment.PLACEMENT_DEDICATED: Placement.DEDICATED,
    deployment_pb2.Deployment.PLACEMENT_SHARED: Placement.SHARED,
}

_Read = Callable[[deployment_pb2.Deployment, Violations], Any]


def spec_fields(message: deployment_pb2.Deployment, violations: Violations) -> dict[str, Any]:
    """Fields of a `DeploymentSpec`; what is not set has its default."""
    return {field: read(message, violations) for field, read in {**_READERS, **_IMMUTABLE}.items()}


def changed_fields(message: deployment_pb2.Deployment, mask: Iterable[str], violations: Violations) -> dict[str, Any]:
    """Fields of a `SpecChange`. Without a mask every field that is set changes."""
    paths = set(mask)
    if "*" in paths:
        paths = set(_READERS)
    for path in sorted(paths - set(_READERS)):
        rule = "is immutable" if path in _IMMUTABLE else f"is not one of {', '.join(_READERS)}"
        violations.add("update_mask", f"{path!r} {rule}")
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


def _shadow(message: deployment_pb2.Deployment, violations: Violations) -> ShadowShare | None:
    if not message.HasField("shadow"):
        return None
    shadow, field = message.shadow, "deployment.shadow"
    reference = VersionReference.check(shadow.model_version, f"{field}.model_version", violations)
    if not 1 <= shadow.percent <= 100:
        violations.add(f"{field}.percent", f"must be in 1..100, is {shadow.percent}")
    return ShadowShare(reference, shadow.percent) if reference else None


def _autoscaling(message: deployment_pb2.Deployment, violations: Violations) -> Autoscaling | None:
    if not message.HasField("autoscaling"):
        return None
    given, field = message.autoscaling, "deployment.autoscaling"
    least = given.min_replicas or 1
    if not 1 <= least <= MAX_REPLICAS:
        violations.add(f"{field}.min_replicas", f"must be in 1..{MAX_REPLICAS}")
    if not least <= given.max_replicas <= MAX_REPLICAS:
        violations.add(f"{field}.max_replicas", f"must be in {least}..{MAX_REPLICAS}, is {given.max_replicas}")
    target = given.target_ongoing_batches or _TARGET_ONGOING
    if not 0 < target <= MAX_REPLICAS:
        violations.add(f"{field}.target_ongoing_batches", f"must be over 0 and at most {MAX_REPLICAS}")
    up = _seconds(given, "upscale_delay", field, 3600.0, violations)
    down = _seconds(given, "downscale_delay", field, 86400.0, violations)
    return Autoscaling(
        least,
        given.max_replicas,
        target,
        _UPSCALE_S if up is None else up,
        _DOWNSCALE_S if down is None else down,
    )


def _batching(message: deployment_pb2.Deployment, violations: Violations) -> Batching:
    given, field = message.batching, "deployment.batching"
    if not 0 <= given.max_size <= _MAX_BATCH:
        violations.add(f"{field}.max_size", f"must be in 1..{_MAX_BATCH}")
    delay_s = _seconds(given, "max_delay", field, 1.0, violations)
    most, sizes = given.max_size or _MAX_BATCH, tuple(sorted(given.preferred_sizes))
    if len(sizes) > _MAX_PREFERRED or len(set(sizes)) < len(sizes) or not all(1 <= size <= most for size in sizes):
        rule = f"at most {_MAX_PREFERRED}, each in 1..{most} and none twice"
        violations.add(f"{field}.preferred_sizes", rule)
    return Batching(given.max_size or None, delay_s, sizes)


def _default_priority(message: deployment_pb2.Deployment, violations: Violations) -> int:
    if message.default_priority < 0:
        violations.add("deployment.default_priority", f"must be at least 1, is {message.default_priority}")
    return message.default_priority or DEFAULT_PRIORITY


def _response_cache(message: deployment_pb2.Deployment, violations: Violations) -> int:
    if not message.HasField("response_cache"):
        return 0
    if not 1 <= message.response_cache.max_bytes <= _MAX_CACHE_BYTES:
        violations.add("deployment.response_cache.max_bytes", f"must be in 1..{_MAX_CACHE_BYTES}")
    return message.response_cache.max_bytes


def _device(message: deployment_pb2.Deployment, violations: Violations) -> Device:
    device = _DEVICES.get(message.device)
    if device is None:
        violations.add("deployment.device", f"{message.device} is not a device")
    return device or Device.CPU


def _placement(message: deployment_pb2.Deployment, violations: Violations) -> Placement:
    placement = _PLACEMENTS.get(message.placement)
    if placement is None:
        violations.add("deployment.placement", f"{message.placement} is not a placement")
    return placement or Placement.DEDICATED


def _pinned(message: deployment_pb2.Deployment, violations: Violations) -> bool:
    return message.pinned


def _warm_up(message: deployment_pb2.Deployment, violations: Violations) -> tuple[int, ...]:
    sizes = tuple(message.warm_up_batch_sizes)
    if len(sizes) > _MAX_WARM_UPS or not all(1 <= size <= MAX_ITEMS for size in sizes):
        violations.add("deployment.warm_up_batch_sizes", f"at most {_MAX_WARM_UPS}, each in 1..{MAX_ITEMS}")
    return sizes


def _seconds(message: Any, name: str, field: str, most_s: float, violations: Violations) -> float | None:
    """A duration, or None when it is not set."""
    if not message.HasField(name):
        return None
    duration = getattr(message, name)
    seconds = float(duration.seconds + duration.nanos / 1e9)
    if not 0 <= seconds <= most_s:
        violations.add(f"{field}.{name}", f"must be in 0..{most_s:g} s, is {seconds:g} s")
    return seconds


_READERS: dict[str, _Read] = {
    "model_version": _model_version,
    "replicas": _replicas,
    "labels": _labels,
    "traffic": _traffic,
    "autoscaling": _autoscaling,
    "batching": _batching,
    "warm_up_batch_sizes": _warm_up,
    "shadow": _shadow,
    "pinned": _pinned,
    "default_priority": _default_priority,
    "response_cache": _response_cache,
}
_IMMUTABLE: dict[str, _Read] = {"device": _device, "placement": _placement}
