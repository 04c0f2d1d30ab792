"""Fixtures of the whole suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enxerto.cli.sample import write_digits
from flushes import Flush, recording
from platforms import Platform, running_platform

CONTRACT = Path(__file__).parent / "contract"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the deployments of tests/e2e/test_tasks.py compute on."""
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu", help="of the deployments in test_tasks.py")


def pytest_configure() -> None:
    """Share the cores among pytest's workers: each takes all of them otherwise, and they wait for each other."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share the platform, or the database servers, on one worker, so that there is one of each."""
    for item in items:
        if "platform" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("platform"))
            item.add_marker(pytest.mark.ray)
        elif item.path.is_relative_to(CONTRACT):
            item.add_marker(pytest.mark.xdist_group("servers"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after long bytes by their argument: an archive holds the time, and each worker makes its own."""
    return argname if isinstance(val, bytes) and len(val) > 64 else None


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The session's platform: Ray and three services. A test that stops a part of it starts it again."""
    with running_platform() as running:
        yield running


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scanned digits as PNG in `train`, `val` and `test` folders of class folders: 12, 4 and 4 of each.

    One more of each digit lies in `held-out` beside the folder.
    """
    return write_digits(tmp_path_factory.mktemp("digits"), {"train": 12, "val": 4, "test": 4}).folder


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[Flush]:
    """Every flush to the disk from here on, in order."""
    seen: list[Flush] = []
    monkeypatch.setattr(os, "fsync", recording(os.fsync, seen))
    return seen
