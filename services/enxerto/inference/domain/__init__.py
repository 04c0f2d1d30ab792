"""Deployments, what they serve, and what travels to a replica."""

from enxerto.inference.domain.cluster import Application, ApplicationState, ApplicationStatus, Endpoint
from enxerto.inference.domain.deployments import MAX_REPLICAS, Deployment, DeploymentSpec, Fault, FaultKind, State
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
from enxerto.inference.domain.versions import Prediction, ServableVersion

__all__ = [
    "ITEM_BYTES",
    "MAX_ITEMS",
    "MAX_REPLICAS",
    "AnswerForm",
    "Application",
    "ApplicationState",
    "ApplicationStatus",
    "BatchAnswer",
    "Deployment",
    "DeploymentSpec",
    "Endpoint",
    "Fault",
    "FaultKind",
    "ItemRefusal",
    "Outline",
    "Payload",
    "PayloadKind",
    "PictureAnswer",
    "Prediction",
    "Segment",
    "ServableVersion",
    "State",
    "Tensor",
    "Timing",
]
