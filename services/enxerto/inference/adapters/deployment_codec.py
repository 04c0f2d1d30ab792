"""Deployments as JSON in the database; what an older service did not write has its default."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from enxerto.inference.domain import (
    DEFAULT_PRIORITY,
    Autoscaling,
    Batching,
    Comparison,
    DeploymentSpec,
    Device,
    Fault,
    FaultKind,
    Placement,
    Rollout,
    ServableVersion,
    ShadowShare,
    TrafficShare,
)
from enxerto.kernel.names import VersionName, VersionReference
from enxerto.vision.specs import Resize, Task, TensorSpec


def options_to_json(spec: DeploymentSpec) -> dict[str, Any]:
    """What a user decided besides version, replicas and labels; nothing for what has its default."""
    options: dict[str, Any] = {}
    if spec.traffic:
        options["traffic"] = [
            {"model_version": str(share.model_version), "percent": share.percent} for share in spec.traffic
        ]
    if spec.autoscaling is not None:
        options["autoscaling"] = dataclasses.asdict(spec.autoscaling)
    if spec.batching != Batching():
        options["batching"] = dataclasses.asdict(spec.batching)
    if spec.device is not Device.CPU:
        options["device"] = spec.device.value
    if spec.warm_up_batch_sizes:
        options["warm_up_batch_sizes"] = list(spec.warm_up_batch_sizes)
    if spec.shadow is not None:
        options["shadow"] = {"model_version": str(spec.shadow.model_version), "percent": spec.shadow.percent}
    if spec.placement is not Placement.DEDICATED:
        options["placement"] = spec.placement.value
    if spec.pinned:
        options["pinned"] = True
    if spec.default_priority != DEFAULT_PRIORITY:
        options["default_priority"] = spec.default_priority
    if spec.response_cache:
        options["response_cache"] = spec.response_cache
    return options


def options_from_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `DeploymentSpec`."""
    autoscaling, shadow = options.get("autoscaling"), options.get("shadow")
    batching = options.get("batching", {})
    return {
        "traffic": tuple(
            TrafficShare(VersionReference.parse(share["model_version"]), share["percent"])
            for share in options.get("traffic", ())
        ),
        "autoscaling": Autoscaling(**autoscaling) if autoscaling else None,
        "batching": Batching(**{**batching, "preferred_sizes": tuple(batching.get("preferred_sizes", ()))}),
        "device": Device(options.get("device", Device.CPU)),
        "warm_up_batch_sizes": tuple(options.get("warm_up_batch_sizes", ())),
        "shadow": ShadowShare(VersionReference.parse(shadow["model_version"]), shadow["percent"]) if shadow else None,
        "placement": Placement(options.get("placement", Placement.DEDICATED)),
        "pinned": options.get("pinned", False),
        "default_priority": options.get("default_priority", DEFAULT_PRIORITY),
        "response_cache": options.get("response_cache", 0),
    }


def fault_to_json(fault: Fault | None) -> dict[str, str] | None:
    """A fault, if there is one."""
    return {"kind": fault.kind.value, "reason": fault.reason, "message": fault.message} if fault else None


def fault_from_json(fault: Mapping[str, str] | None) -> Fault | None:
    """A fault, if there is one."""
    return Fault(FaultKind(fault["kind"]), fault["reason"], fault["message"]) if fault else None


def rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    """A version beside the main one."""
    return {
        "reference": str(rollout.reference),
        "serving": str(rollout.serving or ""),
        "target": str(rollout.target or ""),
        "fault": fault_to_json(rollout.fault),
    }


def rollout_from_json(rollout: Mapping[str, Any]) -> Rollout:
    """A version beside the main one."""
    return Rollout(
        VersionReference.parse(rollout["reference"]),
        VersionName.try_parse(rollout["serving"]),
        VersionName.try_parse(rollout["target"]),
        fault_from_json(rollout["fault"]),
    )


def facts_to_json(version: ServableVersion) -> dict[str, Any]:
    """What is known of a version."""
    return {**json.loads(json.dumps(dataclasses.asdict(version))), "name": str(version.name)}


def facts_from_json(facts: Mapping[str, Any]) -> ServableVersion:
    """What is known of a version."""
    outputs = (TensorSpec(one["name"], one["datatype"], tuple(one["shape"])) for one in facts["outputs"])
    typed = {
        "name": VersionName.parse(facts["name"]),
        "task": Task(facts["task"]),
        "labels": tuple(facts["labels"]),
        "outputs": tuple(outputs),
        "resize": Resize(facts["resize"]),
    }
    return ServableVersion(**{**facts, **typed})


def comparison_to_json(comparison: Comparison | None) -> dict[str, Any] | None:
    """What comparing a shadow has found, if anything."""
    if comparison is None:
        return None
    return {**dataclasses.asdict(comparison), "main": str(comparison.main), "shadow": str(comparison.shadow)}


def comparison_from_json(comparison: Mapping[str, Any] | None) -> Comparison | None:
    """What comparing a shadow has found, if anything."""
    if comparison is None:
        return None
    versions = {side: VersionName.parse(comparison[side]) for side in ("main", "shadow")}
    return Comparison(**{**comparison, **versions})
