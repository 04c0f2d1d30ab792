"""A registry on a free port of the loopback, composed as in production."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from enxerto.registry.bootstrap import compose
from enxerto.registry.server import build_server
from enxerto.registry.settings import RegistrySettings
from enxerto.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from enxerto.runtime.metrics import new_registry


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A served registry and its client."""

    stub: Any
    channel: grpc.aio.Channel
    home: Path
    collectors: CollectorRegistry

    def metric(self, line_start: str) -> float:
        """The value of the one exposed sample that starts with this text."""
        lines = [line for line in generate_latest(self.collectors).decode().splitlines() if line.startswith(line_start)]
        assert len(lines) == 1, lines
        return float(lines[0].rpartition(" ")[2])


class Start(Protocol):
    """Starts a registry with other settings."""

    def __call__(self, **settings: Any) -> Any: ...


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[RunningRegistry]:
        options = RegistrySettings(home=tmp_path, drain_s=1.0, **settings)
        collectors = new_registry()
        async with compose(options, collectors) as composition:
            server = build_server(options, collectors, composition.registry)
            async with server.running(), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield RunningRegistry(RegistryServiceStub(channel), channel, tmp_path, collectors)

    return started


@pytest.fixture
async def registry(start: Start) -> AsyncIterator[RunningRegistry]:
    async with start() as running:
        yield running
