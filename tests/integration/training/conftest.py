"""A training service as a process; with Ray only for the tests that ask for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from training_stack import Stack, running_ray, running_stack


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A registry and a training service that has no cluster: imports work, runs wait."""
    with running_stack(None, tmp_path_factory.mktemp("training")) as stack:
        yield stack


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A registry, a training service and a Ray with two CPUs."""
    with running_ray(cpus=2) as ray, running_stack(ray, tmp_path_factory.mktemp("cluster")) as stack:
        yield stack


@pytest.fixture
def folder(service: Stack, request: pytest.FixtureRequest) -> Path:
    """An empty folder that the service may import from."""
    path = service.import_root / request.node.name.replace("/", "-")
    path.mkdir()
    return path
