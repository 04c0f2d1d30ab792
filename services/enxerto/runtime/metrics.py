"""Prometheus metrics: rate, errors and duration of every RPC, and the port that exposes them.

Labels hold method names and status codes only, never a name that users create.
"""

import functools
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from enxerto.runtime.errors import PortInUseError

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class MethodMetrics:
    """Rate, errors and duration of one method's RPCs, looked up once: finding them takes longer than counting."""

    def __init__(self, metrics: "RpcMetrics", service: str, method: str) -> None:
        self.seconds = metrics.seconds.labels(service, method)
        self.in_flight = metrics.in_flight.labels(service, method)
        self.handled = functools.cache(functools.partial(metrics.handled.labels, service, method))
        """The counter of a code."""


class RpcMetrics:
    """Rate, errors and duration of RPCs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the three metrics."""
        labels = ("service", "method")
        self.handled = Counter("enxerto_rpc_handled", "RPCs that ended.", (*labels, "code"), registry=registry)
        self.seconds = Histogram(
            "enxerto_rpc_seconds", "Duration of RPCs.", labels, buckets=_BUCKETS, registry=registry
        )
        self.in_flight = Gauge("enxerto_rpc_in_flight", "RPCs being served.", labels, registry=registry)


def new_registry() -> CollectorRegistry:
    """A registry with the process's own metrics; passed by constructor, so that a test may have many."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MetricsServer:
    """The HTTP port that Prometheus scrapes, open while the context is."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise PortInUseError(host, port, "metrics") from error
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
