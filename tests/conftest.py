"""Fixtures of the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from enxerto.cli.sample import write_digits
from platforms import Platform, running_platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share the platform on one worker, so that there is one of it."""
    for item in items:
        if "platform" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("platform"))
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The session's platform: Ray and three services. A test that stops a part of it starts it again."""
    with running_platform() as running:
        yield running


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 16 scanned digits each, as PNG; and 1 more of each class in `held-out` beside the folder."""
    return write_digits(tmp_path_factory.mktemp("digits"), per_class=16).folder
