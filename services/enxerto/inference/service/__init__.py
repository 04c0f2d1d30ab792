"""Use cases: deployments, requests, and the loop that makes what runs agree with what was asked for."""

from enxerto.inference.service.batching import Batcher, BatchLimits, Share
from enxerto.inference.service.counted import CountedPredictions
from enxerto.inference.service.deployments import Deployments, SpecChange
from enxerto.inference.service.predictions import Predictions, RequestLimits
from enxerto.inference.service.reconciler import Pace, Reconciler
from enxerto.inference.service.routing import Route, Router
from enxerto.inference.service.statistics import BatchTimes, Spent, Statistics, VersionStatistics

__all__ = [
    "BatchLimits",
    "BatchTimes",
    "Batcher",
    "CountedPredictions",
    "Deployments",
    "Pace",
    "Predictions",
    "Reconciler",
    "RequestLimits",
    "Route",
    "Router",
    "Share",
    "SpecChange",
    "Spent",
    "Statistics",
    "VersionStatistics",
]
