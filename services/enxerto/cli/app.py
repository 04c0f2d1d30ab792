"""The command's tree. Commands import what they need when they run, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from enxerto.cli import (
    base_models,
    datasets,
    models,
    platform,
    predicting,
    quality,
    quickstart,
    reports,
    runs,
    serving,
    sweeps,
    training,
)
from enxerto.cli.failures import EXIT_INTERRUPTED, fail
from enxerto.cli.session import Session

app = typer.Typer(
    name="enxerto",
    help="Graft new vision tasks onto pretrained networks: train, register and serve.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a service, 4 not found, 5 a service is away, "
    "130 interrupted.",
)


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(envvar="ENXERTO_HOME", help="Where the local platform lives; ~/.enxerto by default.")
    ] = None,
    project: Annotated[str, typer.Option(envvar="ENXERTO_PROJECT", help="The project of short names.")] = "default",
    registry: Annotated[
        str | None, typer.Option(envvar="ENXERTO_REGISTRY", help="HOST:PORT; the local platform's by default.")
    ] = None,
    training: Annotated[str | None, typer.Option(envvar="ENXERTO_TRAINING", help="HOST:PORT.")] = None,
    inference: Annotated[str | None, typer.Option(envvar="ENXERTO_INFERENCE", help="HOST:PORT.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(envvar="ENXERTO_TLS_CA", help="PEM authorities; the services speak TLS.")
    ] = None,
) -> None:
    """What every command shares."""
    context.obj = Session(home, project, registry, training, inference, tls_ca)


platform.register(app)
datasets.register(app)
base_models.register(app)
training.register(app)
runs.register(app)
sweeps.register(app)
models.register(app)
reports.register(app)
serving.register(app)
predicting.register(app)
quality.register(app)
quickstart.register(app)


def main() -> None:
    """Run the command line; every failure becomes a message and an exit code."""
    as_json = "--json" in sys.argv[1:]
    try:
        status = app(standalone_mode=False)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001
        raise SystemExit(fail(error, as_json=as_json)) from None
    # What `typer.Exit` carried; a command itself returns nothing.
    raise SystemExit(status or 0)
