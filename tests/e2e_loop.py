"""What a loop through the command gives, for the tests that look at what came of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platforms import Platform


@dataclass(frozen=True)
class Grafted:
    """What the loop through the command gave."""

    platform: Platform
    snapshot: dict[str, Any]
    run: dict[str, Any]
    deployment: dict[str, Any]
    held_out: list[Path]
    """An image of each digit that was not in training, in order."""


def enxerto_json(platform: Platform, *arguments: str) -> Any:
    """Run a command with --json and return the last document that it printed."""
    done = platform.enxerto(*arguments, "--json")
    assert done.returncode == 0, f"{arguments}: {done.stderr}\n{done.stdout}"
    return json.loads(done.stdout.splitlines()[-1])
