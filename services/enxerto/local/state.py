"""What runs, as written to ENXERTO_HOME/run/state.json. Standard library only, for the client reads it too."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

SERVICES = ("registry", "training", "inference")
RAY = "ray"


def default_home() -> Path:
    """ENXERTO_HOME, or `~/.enxerto`."""
    configured = os.environ.get("ENXERTO_HOME")
    return Path(configured).expanduser().absolute() if configured else Path.home() / ".enxerto"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One supervised process, the leader of its own session."""

    pid: int
    create_time: float
    """When it started, in seconds since 1970: with the pid it tells the process from a later one of the same pid."""
    address: str
    """`host:port` that it answers on."""
    metrics_url: str
    log: str
    """Path of its log."""


@dataclass(frozen=True, slots=True)
class PlatformState:
    """A running platform."""

    instance: str
    """Random id that every process of it carries in its environment."""
    port_base: int
    cpus: int
    """What Ray may hand out."""
    processes: Mapping[str, ProcessState]
    """By name: `ray`, `registry`, `training`, `inference`."""

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """Read the state of the platform under a home; None when none was started."""
        try:
            value = json.loads(state_file(home).read_text())
        except FileNotFoundError:
            return None
        processes = {name: ProcessState(**process) for name, process in value["processes"].items()}
        return cls(value["instance"], value["port_base"], value["cpus"], processes)

    def write(self, home: Path) -> None:
        """Write the state so that a reader sees all of it or nothing."""
        path = state_file(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)


def state_file(home: Path) -> Path:
    """Where the state of the platform under a home is written."""
    return home / "run" / "state.json"
