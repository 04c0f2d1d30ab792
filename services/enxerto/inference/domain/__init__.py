"""Deployments, what they serve, and what travels to a replica."""

from enxerto.inference.domain.cluster import Application, ApplicationState, ApplicationStatus, Endpoint
from enxerto.inference.domain.comparisons import Comparison
from enxerto.inference.domain.deployments import Deployment, State
from enxerto.inference.domain.requests import (
    ITEM_BYTES,
    MAX_ITEMS,
    AnswerForm,
    BatchAnswer,
    ItemRefusal,
    Outline,
    Payload,
    PayloadKind,
    PictureAnswer,
    Segment,
    Tensor,
    Timing,
)
from enxerto.inference.domain.rollouts import Fault, FaultKind, Rollout
from enxerto.inference.domain.specs import (
    MAX_REPLICAS,
    MAX_TRAFFIC_PERCENT,
    MAX_TRAFFIC_TARGETS,
    Autoscaling,
    Batching,
    DeploymentSpec,
    Device,
    Scale,
    ShadowShare,
    TrafficShare,
)
from enxerto.inference.domain.traffic import place
from enxerto.inference.domain.versions import Prediction, ServableVersion

__all__ = [
    "ITEM_BYTES",
    "MAX_ITEMS",
    "MAX_REPLICAS",
    "MAX_TRAFFIC_PERCENT",
    "MAX_TRAFFIC_TARGETS",
    "AnswerForm",
    "Application",
    "ApplicationState",
    "ApplicationStatus",
    "Autoscaling",
    "BatchAnswer",
    "Batching",
    "Comparison",
    "Deployment",
    "DeploymentSpec",
    "Device",
    "Endpoint",
    "Fault",
    "FaultKind",
    "ItemRefusal",
    "Outline",
    "Payload",
    "PayloadKind",
    "PictureAnswer",
    "Prediction",
    "Rollout",
    "Scale",
    "Segment",
    "ServableVersion",
    "ShadowShare",
    "State",
    "Tensor",
    "Timing",
    "TrafficShare",
    "place",
]
