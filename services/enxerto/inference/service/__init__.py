"""Use cases: deployments, requests, and the loop that makes what runs agree with what was asked for."""

from enxerto.inference.service.batching import Batcher, BatchLimits, Share
from enxerto.inference.service.caching import ResponseCaches
from enxerto.inference.service.counted import CountedPredictions
from enxerto.inference.service.deployments import Deployments, SpecChange
from enxerto.inference.service.feedback import Quality
from enxerto.inference.service.fleet import Fleet
from enxerto.inference.service.lanes import Lanes
from enxerto.inference.service.observation import ObservationLimits, Observer
from enxerto.inference.service.pooling import Pooling
from enxerto.inference.service.predictions import Predictions, RequestLimits
from enxerto.inference.service.rates import ProjectRates
from enxerto.inference.service.reconciler import Pace, Reconciler
from enxerto.inference.service.references import References
from enxerto.inference.service.routes import Route
from enxerto.inference.service.routing import Canary, Router, Split
from enxerto.inference.service.samples import Retention, Samples
from enxerto.inference.service.shadowing import Shadowing
from enxerto.inference.service.statistics import BatchTimes, Spent, Statistics, VersionStatistics
from enxerto.inference.service.streaming import in_order
from enxerto.inference.service.trials import Trials
from enxerto.inference.service.watching import WatchedStore

__all__ = [
    "BatchLimits",
    "BatchTimes",
    "Batcher",
    "Canary",
    "CountedPredictions",
    "Deployments",
    "Fleet",
    "Lanes",
    "ObservationLimits",
    "Observer",
    "Pace",
    "Pooling",
    "Predictions",
    "ProjectRates",
    "Quality",
    "Reconciler",
    "References",
    "RequestLimits",
    "ResponseCaches",
    "Retention",
    "Route",
    "Router",
    "Samples",
    "Shadowing",
    "Share",
    "SpecChange",
    "Spent",
    "Split",
    "Statistics",
    "Trials",
    "VersionStatistics",
    "WatchedStore",
    "in_order",
]
