"""Use cases: deployments, requests, and the loop that makes what runs agree with what was asked for."""

from enxerto.inference.service.batching import Batcher, BatchLimits, Share
from enxerto.inference.service.deployments import Deployments, SpecChange
from enxerto.inference.service.fleet import Fleet
from enxerto.inference.service.lanes import Lanes
from enxerto.inference.service.ordering import in_order
from enxerto.inference.service.predictions import Predictions, RequestLimits
from enxerto.inference.service.reconciler import Pace, Reconciler
from enxerto.inference.service.references import References
from enxerto.inference.service.routes import Route
from enxerto.inference.service.routing import Canary, Router, Split
from enxerto.inference.service.shadowing import Shadowing
from enxerto.inference.service.trials import Trials
from enxerto.inference.service.watching import WatchedStore

__all__ = [
    "BatchLimits",
    "Batcher",
    "Canary",
    "Deployments",
    "Fleet",
    "Lanes",
    "Pace",
    "Predictions",
    "Reconciler",
    "References",
    "RequestLimits",
    "Route",
    "Router",
    "Shadowing",
    "Share",
    "SpecChange",
    "Split",
    "Trials",
    "WatchedStore",
    "in_order",
]
