"""`enxerto runs`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import (
    LARGEST_LONG,
    JsonOption,
    console,
    emit_json,
    emit_table,
    result,
    session,
    short,
    show_files,
    show_metrics,
)

if TYPE_CHECKING:
    from enxerto.client import Run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    runs = typer.Typer(help="Training runs.", no_args_is_help=True)
    runs.command("list")(list_)
    runs.command()(show)
    runs.command()(watch)
    runs.command()(cancel)
    runs.command()(pause)
    runs.command()(resume)
    runs.command()(files)
    app.add_typer(runs, name="runs")


def finish(run: "Run", *, as_json: bool) -> None:
    """Show the run; fail when it failed."""
    from enxerto.client import RunState

    if as_json:
        emit_json(run)
    else:
        show_run(run)
    if run.state in (RunState.FAILED, RunState.CANCELLED):
        raise typer.Exit(1)


def show_run(run: "Run") -> None:
    """Tell a person about a run."""
    out = console()
    out.print(f"run        {short(run.name)}")
    out.print(f"state      {run.state}" + (f" ({run.stop_reason})" if run.stop_reason else ""))
    out.print(f"data       {short(run.snapshot)}")
    out.print(
        f"from       {short(run.base_model)}, weights {run.weights}, {run.strategy}"
        + (f", encoder {short(run.encoder)}" if run.encoder else "")
    )
    out.print(f"settings   {', '.join(_flat(run.settings))}")
    if run.sweep:
        out.print(f"sweep      {short(run.sweep)}")
    if run.queue:
        place = f"place {run.queue.position}: " if run.queue.position else ""
        out.print(f"waits      {place}{run.queue.message or run.queue.reason}")
    if run.checkpoint:
        steps = f" and {run.checkpoint.step} steps" if run.checkpoint.step else ""
        out.print(f"checkpoint {run.checkpoint.phase}, epoch {run.checkpoint.epoch}{steps}")
    if run.progress and not run.state.is_final:
        out.print(f"phase      {run.progress.phase}, epoch {run.progress.epoch} of {run.progress.epoch_count}")
    show_metrics(run.metrics)
    for file in run.files:
        out.print(f"file       {file.filename}, {file.size_bytes} bytes")
    if run.model_version:
        out.print(f"version    {short(run.model_version)}")
    if run.error:
        out.print(f"error      {run.error.message} [{run.error.reason}]")
        for violation in run.error.violations:
            out.print(f"           {violation}")


def _flat(settings: "Mapping[str, Any]", prefix: str = "") -> list[str]:
    """Settings as `loss.focal_gamma 2`."""
    found: list[str] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} {value:g}" if isinstance(value, float) else f"{prefix}{name} {value}")
    return found


def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    with session(context).client() as client:
        found = list(client.runs(limit))
    if as_json:
        emit_json({"runs": found})
        return
    emit_table(
        ("run", "state", "data", "from", "weights", "result", "version"),
        (
            (
                short(run.name),
                run.state,
                short(run.snapshot),
                short(run.base_model),
                run.weights,
                result(run.metrics),
                short(run.model_version) if run.model_version else "",
            )
            for run in found
        ),
        "No runs. Start one with: enxerto train DATASET",
    )


def show(context: typer.Context, run: str, as_json: JsonOption = False) -> None:
    """Show a run."""
    with session(context).client() as client:
        found = client.run(run)
    if as_json:
        emit_json(found)
    else:
        show_run(found)


def watch(
    context: typer.Context,
    run: str,
    after_cursor: Annotated[
        int, typer.Option(min=0, max=LARGEST_LONG, help="Only what happened after this event.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Watch a run until it ends. With --json, prints the events and at last the run."""
    from enxerto.cli.watching import follow

    with session(context).client() as client:
        finish(follow(client, client.run(run), as_json=as_json, after_cursor=after_cursor), as_json=as_json)


def cancel(context: typer.Context, run: str, as_json: JsonOption = False) -> None:
    """Ask a run to stop."""
    with session(context).client() as client:
        _tell(client.cancel(run), as_json=as_json)


def pause(context: typer.Context, run: str, as_json: JsonOption = False) -> None:
    """Stop a run and keep its last checkpoint."""
    with session(context).client() as client:
        _tell(client.pause(run), as_json=as_json, then="go on with: enxerto runs resume {}")


def resume(context: typer.Context, run: str, as_json: JsonOption = False) -> None:
    """Let a paused run go on from its last checkpoint."""
    with session(context).client() as client:
        _tell(client.resume(run), as_json=as_json, then="watch it with: enxerto runs watch {}")


def _tell(run: "Run", *, as_json: bool, then: str = "") -> None:
    if as_json:
        emit_json(run)
        return
    name = short(run.name)
    console().print(f"{name} is {run.state}" + (f"; {then.format(name)}" if then else ""))


def files(
    context: typer.Context,
    run: str,
    folder: Annotated[Path | None, typer.Argument(help="Download them to this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the files that a run has left besides its version's, or download them."""
    with session(context).client() as client:
        if folder is not None:
            paths = client.download_run_files(run, folder)
            show_files(paths, as_json=as_json)
            return
        found = client.run(run).files
    if as_json:
        emit_json({"files": found})
        return
    emit_table(
        ("file", "bytes", "type"), ((item.filename, item.size_bytes, item.media_type) for item in found), "No files."
    )
