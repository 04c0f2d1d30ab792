"""What every command shares: the home, the addresses, and how to answer."""

import enum
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from enxerto.client import Client, Metric

_PIPE_WIDTH = 1000

SCORES = ("accuracy", "map_50_95", "miou", "ssim")
"""Metrics that runs of each task are compared by; more is better."""

LARGEST_INT = 2**31 - 1
"""What most numbers of the contracts can be."""

LARGEST_LONG = 2**63 - 1
"""What seeds, cursors and sizes in bytes can be."""

JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@dataclass(frozen=True, slots=True)
class Session:
    """The options before the command."""

    chosen_home: Path | None
    project: str
    registry: str | None
    training: str | None
    inference: str | None
    tls_ca: Path | None

    @property
    def home(self) -> Path:
        """Where the local platform lives."""
        from enxerto.local.state import default_home

        return self.chosen_home.expanduser().absolute() if self.chosen_home else default_home()

    def client(self) -> "Client":
        """A client of the chosen platform."""
        from enxerto.client import Client, Tls

        return Client(
            registry=self.registry,
            training=self.training,
            inference=self.inference,
            home=self.home,
            project=self.project,
            tls=Tls(ca=self.tls_ca) if self.tls_ca else None,
        )


def session(context: typer.Context) -> Session:
    """The session of a command."""
    found = context.find_object(Session)
    assert found is not None
    return found


def console(*, stderr: bool = False) -> "Console":
    """Where people read."""
    from rich.console import Console

    # Names of people and words of services hold brackets and colons, which mean nothing else.
    out = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not out.is_terminal:
        # A pipe has all the room there is: nothing is folded that a script may look for.
        out.width = _PIPE_WIDTH
    return out


def plain(text: str) -> "Text":
    """Text for those parts of rich that look for marks in a string, whatever the console says."""
    from rich.text import Text

    return Text(text)


@contextmanager
def wrong_usage(option: str | None = None) -> Iterator[None]:
    """Blame the command line for what the client does not take."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def emit_json(value: Any) -> None:
    """Print one JSON document on one line."""
    print(json.dumps(to_json(value), ensure_ascii=False), flush=True)


def to_json(value: Any) -> Any:
    """Dataclasses, enums, times and paths as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    match value:
        case enum.Enum():
            return value.value
        case datetime() | Path():
            return value.isoformat() if isinstance(value, datetime) else str(value)
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case Iterable() if not isinstance(value, str):
            return [to_json(item) for item in value]
        case _:
            return value


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print a table for people, or a line that says that there is nothing."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        console().print(empty)


def short(name: str) -> str:
    """Last part of a full name; `model@3` for a version, `dataset@3` for a snapshot."""
    parts = name.split("/")
    return f"{parts[-3]}@{parts[-1]}" if parts[-2:-1] in (["versions"], ["snapshots"]) else parts[-1]


def percent(value: float | None) -> str:
    """A ratio for people."""
    return "" if value is None else f"{100 * value:.1f} %"


def result(metrics: "Sequence[Metric]") -> str:
    """The number that people compare runs and versions by, on held-out images where it was measured there."""
    for split in ("test", "val", None):
        for name in SCORES:
            for metric in metrics:
                if metric.name == name and not metric.class_name and split in (metric.split, None):
                    return f"{name} {percent(metric.value)}"
    return ""


def show_metrics(metrics: "Sequence[Metric]") -> None:
    """Measurements of all classes together, one a line; those of single classes are in the report."""
    for metric in metrics:
        if not metric.class_name:
            console().print(f"{metric.split:<6} {metric.name:<20} {metric.value:.4f}")


def show_files(paths: "Sequence[Path]", *, as_json: bool) -> None:
    """Where files were put."""
    if as_json:
        emit_json({"files": paths})
        return
    for path in paths:
        console().print(str(path))
