from collections.abc import Iterator

import pytest

from enxerto.client import Client
from fakes.scripted_services import ScriptedServices, scripted_services


@pytest.fixture
def services() -> Iterator[ScriptedServices]:
    with scripted_services() as running:
        yield running


@pytest.fixture
def client(services: ScriptedServices) -> Iterator[Client]:
    address = services.address
    with Client(registry=address, training=address, inference=address, timeout_s=5) as opened:
        yield opened
