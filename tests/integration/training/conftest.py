"""A training service as a process; with the platform's Ray only for the tests that ask for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enxerto.local.layout import Layout
from platforms import Platform
from training_calls import import_digits
from training_stack import Ray, Stack, running_stack


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A registry and a training service that has no cluster: imports work, runs wait."""
    with running_stack(None, tmp_path_factory.mktemp("training")) as stack:
        yield stack


@pytest.fixture(scope="session")
def ray(platform: Platform) -> Ray:
    """The platform's Ray, which nobody kills."""
    layout = Layout(platform.home)
    return Ray(f"http://{platform.address('ray')}", layout.ray_token, layout.ray_folder)


@pytest.fixture(scope="session")
def cluster(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A registry and a training service of their own on the platform's Ray, so that a test may kill them."""
    with running_stack(ray, tmp_path_factory.mktemp("cluster")) as stack:
        yield stack


@pytest.fixture(scope="session")
def snapshot(cluster: Stack) -> str:
    """A snapshot of scanned digits."""
    return import_digits(cluster)


@pytest.fixture
def folder(service: Stack, request: pytest.FixtureRequest) -> Path:
    """An empty folder that the service may import from."""
    path = service.import_root / request.node.name.replace("/", "-")
    path.mkdir()
    return path
