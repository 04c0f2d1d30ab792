"""One model trained through the command, for the tests of this folder."""

from pathlib import Path

import pytest

from e2e_loop import Grafted, enxerto_json
from platforms import Platform


@pytest.fixture(scope="session")
def grafted(platform: Platform, digits_folder: Path) -> Grafted:
    """Import, train, promote and deploy."""
    snapshot = enxerto_json(platform, "datasets", "import", "digits", str(digits_folder))
    run = enxerto_json(platform, "train", "digits", "--epochs", "8", "--seed", "1")
    enxerto_json(platform, "models", "promote", run["model_version"])
    deployment = enxerto_json(platform, "deploy", "digits")
    held_out = sorted((digits_folder.parent / "held-out").rglob("*.png"))
    return Grafted(platform, snapshot, run, deployment, held_out)
