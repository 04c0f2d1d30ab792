"""`enxerto report`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A version, MODEL@N or MODEL@ALIAS, or a run.")],
    save: Annotated[Path | None, typer.Option(help="Put it into this folder.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the report of a version or a run: one HTML file with curves, mistakes, data and lineage."""
    import webbrowser

    folder = save or Path(tempfile.mkdtemp(prefix="enxerto-report-")) if open_ or save else Path()
    with session(context).client() as client:
        path = client.report(name, folder)
    if as_json:
        emit_json({"report": path})
    else:
        console().print(str(path))
    if open_ and not webbrowser.open(path.absolute().as_uri()) and not as_json:
        console(stderr=True).print("No browser can be opened here; the file is the one above.")
