import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.scripted_services import ScriptedServices, scripted_services
from platforms import run_enxerto

Enxerto = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scripted() -> Iterator[ScriptedServices]:
    """Services that answer what a test has written down."""
    with scripted_services() as running:
        yield running


@pytest.fixture
def command(scripted: ScriptedServices, tmp_path: Path) -> Enxerto:
    """The command, pointed at them."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        addresses = [f"--{name}={scripted.address}" for name in ("registry", "training", "inference")]
        return run_enxerto(tmp_path, [*addresses, *arguments], timeout_s=60)

    return run
