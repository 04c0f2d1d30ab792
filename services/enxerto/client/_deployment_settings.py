"""What may be said of a deployment besides its version, as the contract's message."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from enxerto.client._names import Names
from enxerto.client._settings import fill
from enxerto.inference.v1 import deployment_pb2


class AutoscalingSettings(TypedDict, total=False):
    """Replicas between two bounds."""

    min_replicas: int
    max_replicas: int
    target_ongoing_batches: float
    upscale_delay: float | timedelta
    downscale_delay: float | timedelta


class BatchingSettings(TypedDict, total=False):
    """How requests are gathered into calls of a replica."""

    max_size: int
    max_delay: float | timedelta
    preferred_sizes: Sequence[int]


class ResponseCacheSettings(TypedDict, total=False):
    """Answers that are given again to requests with the same content."""

    max_bytes: int


class DeploymentSettings(TypedDict, total=False):
    """What may be said of a deployment besides its version; docs/serving.md has each rule.

    What is left out stays as it is, or has its default in a new deployment.
    """

    replicas: int
    labels: Mapping[str, str]
    traffic: Mapping[str, int]
    """Per cent of the requests by version, such as `{"flowers@candidate": 10}`; empty ends the split."""
    shadow: Mapping[str, int] | None
    """Likewise for one version that gets copies; None ends it."""
    autoscaling: AutoscalingSettings | None
    """None leaves `replicas` as they are."""
    batching: BatchingSettings
    warm_up_batch_sizes: Sequence[int]
    default_priority: int
    """Of requests that do not say: 1 goes first, 2 by default."""
    response_cache: ResponseCacheSettings | None
    """None keeps no answers."""
    device: str
    """`cpu` or `gpu`; only for a new deployment."""
    placement: str
    """`dedicated` or `shared`, for replicas that hold many deployments' models in turn; only for a new deployment."""
    pinned: bool
    """Shared: whether its models never make room for others."""


_PLAIN = (
    "replicas",
    "autoscaling",
    "batching",
    "warm_up_batch_sizes",
    "default_priority",
    "response_cache",
    "device",
    "placement",
    "pinned",
)


def deployment_message(
    version: str | None, settings: Mapping[str, Any], names: Names
) -> tuple[deployment_pb2.Deployment, list[str]]:
    """The message, and the fields that it says something about.

    Args:
        version: number or alias of a model, such as `flowers@production`; None leaves it as it is.
        settings: `DeploymentSettings`.
        names: completes names.

    Raises:
        TypeError: names the settings that do not exist.
        ValueError: a value that its setting does not take.
    """
    message = deployment_pb2.Deployment()
    if unknown := sorted(set(settings) - set(DeploymentSettings.__annotations__)):
        raise TypeError(f"no such setting of a deployment: {', '.join(unknown)}")
    plain = {name: value for name, value in settings.items() if name in _PLAIN}
    fill(message, plain, "")
    message.labels.update(settings.get("labels", {}))
    for reference, percent in settings.get("traffic", {}).items():
        share = {"model_version": names.version(reference), "percent": percent}
        fill(message.traffic.add(), share, f"traffic[{reference}].")
    if shadow := settings.get("shadow"):
        if len(shadow) != 1:
            raise ValueError("shadow must name one version")
        ((reference, percent),) = shadow.items()
        fill(message.shadow, {"model_version": names.version(reference), "percent": percent}, "shadow.")
    if version is not None:
        message.model_version = names.version(version)
    return message, [*(["model_version"] if version is not None else []), *settings]


def parse_shares(texts: Iterable[str]) -> dict[str, int]:
    """Shares as people type them, `["flowers@candidate=10"]`.

    Raises:
        ValueError: one is not VERSION=PERCENT.
    """
    shares = {}
    for text in texts:
        version, equals, percent = text.rpartition("=")
        if not equals or not percent.strip().isdecimal():
            raise ValueError(f"{text!r} must be VERSION=PERCENT, such as flowers@candidate=10")
        shares[version.strip()] = int(percent)
    return shares
