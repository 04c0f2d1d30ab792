"""What runs, as written to ENXERTO_HOME/run/state.json. Standard library at heart, for the client reads it too."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from enxerto.runtime.durable_files import publish

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
    started: float | None
    """When it started, in the machine's own measure: with the pid it tells it from a later process of the same pid.

    None in the state of an older release.
    """
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
        processes = {name: _process_state(process) for name, process in value["processes"].items()}
        return cls(value["instance"], value["port_base"], value["cpus"], processes)

    def write(self, home: Path) -> None:
        """Write the state so that a reader sees all of it or nothing, also after a power failure."""
        publish(state_file(home), (json.dumps(asdict(self), indent=2) + "\n").encode())


def _process_state(value: Mapping[str, Any]) -> ProcessState:
    known: dict[str, Any] = {field.name: value.get(field.name) for field in fields(ProcessState)}
    return ProcessState(**known)


def state_file(home: Path) -> Path:
    """Where the state of the platform under a home is written."""
    return home / "run" / "state.json"
