"""Use cases: deployments, requests, and the loop that makes what runs agree with what was asked for."""

from enxerto.inference.service.batching import Batcher, BatchLimits, Share
from enxerto.inference.service.deployments import Deployments, SpecChange
from enxerto.inference.service.feedback import Quality
from enxerto.inference.service.observation import ObservationLimits, Observer
from enxerto.inference.service.predictions import Predictions, RequestLimits
from enxerto.inference.service.reconciler import Pace, Reconciler
from enxerto.inference.service.routing import Route, Router
from enxerto.inference.service.samples import Retention, Samples
from enxerto.inference.service.streaming import in_order

__all__ = [
    "BatchLimits",
    "Batcher",
    "Deployments",
    "ObservationLimits",
    "Observer",
    "Pace",
    "Predictions",
    "Quality",
    "Reconciler",
    "RequestLimits",
    "Retention",
    "Route",
    "Router",
    "Samples",
    "Share",
    "SpecChange",
    "in_order",
]
