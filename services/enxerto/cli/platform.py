"""`enxerto up`, `down` and `status`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, session

if TYPE_CHECKING:
    from enxerto.local.supervisor import ProcessStatus

Report = Callable[[str, str], None]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


@contextmanager
def live_report(*, quiet: bool = False) -> Iterator[Report]:
    """A line per process that changes in place on a terminal, and a line per change elsewhere."""
    from rich.live import Live
    from rich.text import Text

    out = console(stderr=True)
    states: dict[str, str] = {}
    if quiet:
        yield lambda _name, _what: None
    elif not out.is_terminal:
        yield lambda name, what: out.print(f"{name}: {what}")
    else:
        with Live(console=out, refresh_per_second=8) as live:

            def report(name: str, what: str) -> None:
                states[name] = what
                live.update(Text("\n".join(f"  {name:<10} {what}" for name, what in states.items())))

            yield report


def up(
    context: typer.Context,
    port_base: Annotated[
        int | None,
        typer.Option(min=1024, max=65000, help="First of the 500 ports to use; those of before a crash, or 7300."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=2, help="CPUs that Ray may hand out; the machine's, at least 4.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start Ray and the three services on this machine, and wait until they answer."""
    from enxerto.local.supervisor import Supervisor

    home = session(context).home
    supervisor = Supervisor(home)
    with live_report(quiet=as_json) as report:
        started = supervisor.up(port_base=port_base, cpus=cpus, report=report)
    if as_json:
        emit_json({"started": started, "home": home, "processes": supervisor.status()})
    else:
        console().print("The platform is running." if started else "The platform was running already.")
        _show(supervisor.status())
        console().print(f"Logs: {home / 'logs'}\nStop it with: enxerto down")


def down(context: typer.Context, as_json: JsonOption = False) -> None:
    """Stop the local platform: calls that run may end, nothing is lost."""
    from enxerto.local.supervisor import Supervisor

    with live_report(quiet=as_json) as report:
        stopped = Supervisor(session(context).home).down(report=report)
    if as_json:
        emit_json({"stopped": stopped})
    else:
        console().print("The platform is stopped." if stopped else "The platform was not running.")


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show each process of the local platform: pid, address, health, metrics. Fails when one does not serve."""
    from enxerto.local.supervisor import Supervisor

    home = session(context).home
    processes = Supervisor(home).status()
    healthy = bool(processes) and all(process.health == "serving" for process in processes)
    if as_json:
        emit_json({"home": home, "healthy": healthy, "processes": processes})
    else:
        _show(processes)
    if not healthy:
        raise typer.Exit(1)


def _show(processes: "list[ProcessStatus]") -> None:
    emit_table(
        ("process", "pid", "address", "health", "metrics"),
        ((item.name, item.pid, item.address, item.health, item.metrics_url) for item in processes),
        "The platform is not running. Start it with: enxerto up",
    )
