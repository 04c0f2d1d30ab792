"""`enxerto sweeps`."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import (
    LARGEST_INT,
    LARGEST_LONG,
    JsonOption,
    console,
    emit_json,
    emit_table,
    plain,
    session,
    short,
    wrong_usage,
)
from enxerto.cli.training import BaseModelOption, DatasetArgument, ModelOption, SetOption, model_of, read_settings

if TYPE_CHECKING:
    from enxerto.client import Sweep

_BOUNDS = re.compile(r"^(?P<log>log:)?(?P<low>[-+.\deE]+)\.\.(?P<high>[-+.\deE]+)$")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    sweeps = typer.Typer(help="Searches for better settings.", no_args_is_help=True)
    sweeps.command()(create)
    sweeps.command("list")(list_)
    sweeps.command()(show)
    sweeps.command()(wait)
    sweeps.command()(cancel)
    app.add_typer(sweeps, name="sweeps")


def create(
    context: typer.Context,
    dataset: DatasetArgument,
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=VALUES",
            help="What varies: learning_rate=log:1e-4..1e-2, batch_size=8..64 or optimizer=ADAMW,SGD. May be repeated.",
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, max=LARGEST_INT, help="Runs in all.")] = 20,
    parallel: Annotated[int, typer.Option(min=1, max=LARGEST_INT, help="Runs at the same time.")] = 1,
    grace_epochs: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_INT,
            help="Epochs before a run may be stopped for doing worse than others; 0 stops none.",
        ),
    ] = 0,
    model: ModelOption = "",
    base_model: BaseModelOption = "efficientnet-lite0",
    search_seed: Annotated[int, typer.Option(min=0, max=LARGEST_LONG, help="Seed of the search.")] = 0,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a search; every trial is a run. `--set` says what all of them share."""
    settings = read_settings({}, assignments or ())
    ranges = dict(_vary(text) for text in vary)
    with session(context).client() as client, wrong_usage("--vary"):
        sweep = client.sweep(
            dataset,
            model=model or model_of(dataset),
            base_model=base_model,
            vary=ranges,
            max_trials=trials,
            max_parallel_trials=parallel,
            pruning_grace_epochs=grace_epochs,
            search_seed=search_seed,
            **settings,
        )
    if as_json:
        emit_json(sweep)
    else:
        name = short(sweep.name)
        console().print(f"Started sweep {name}. See how it goes with: enxerto sweeps show {name}")


def _vary(text: str) -> tuple[str, Any]:
    """`learning_rate=log:1e-4..1e-2` as a path and bounds, `optimizer=ADAMW,SGD` as a path and values."""
    from enxerto.client import Between

    path, equals, values = text.partition("=")
    if not equals or not values:
        raise typer.BadParameter(
            f"{text!r} must be FIELD=LOW..HIGH, FIELD=log:LOW..HIGH or FIELD=A,B", param_hint="--vary"
        )
    path = path.strip().replace("-", "_")
    bounds = _BOUNDS.match(values)
    if bounds is None:
        return path, [value.strip() for value in values.split(",")]
    try:
        return path, Between(_number(bounds["low"]), _number(bounds["high"]), bool(bounds["log"]))
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--vary") from error


def _number(text: str) -> float:
    """A whole number where it is written as one: so the service knows what kind the field takes."""
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the sweeps, newest first."""
    with session(context).client() as client:
        found = list(client.sweeps(limit))
    if as_json:
        emit_json({"sweeps": found})
        return
    emit_table(
        ("sweep", "state", "trials", "best", "best run", "created"),
        (
            (
                short(item.name),
                item.state,
                f"{len(item.trials)} of {item.max_trials}",
                _score(item.best_score),
                short(item.best_run) if item.best_run else "",
                item.create_time,
            )
            for item in found
        ),
        "No sweeps. Start one with: enxerto sweeps create DATASET --vary FIELD=VALUES",
    )


def show(context: typer.Context, sweep: str, as_json: JsonOption = False) -> None:
    """Show a sweep with its trials, the best first."""
    with session(context).client() as client:
        _tell(client.get_sweep(sweep), as_json=as_json)


def wait(context: typer.Context, sweep: str, as_json: JsonOption = False) -> None:
    """Wait until a sweep ends."""
    with session(context).client() as client, console(stderr=True).status(plain(f"waiting for {sweep}")):
        found = client.wait_sweep(sweep)
    _tell(found, as_json=as_json)


def cancel(context: typer.Context, sweep: str, as_json: JsonOption = False) -> None:
    """Ask a sweep and its trials to stop."""
    with session(context).client() as client:
        _tell(client.cancel_sweep(sweep), as_json=as_json)


def _tell(sweep: "Sweep", *, as_json: bool) -> None:
    if as_json:
        emit_json(sweep)
        return
    out = console()
    out.print(f"{short(sweep.name)}   {sweep.state}, {len(sweep.trials)} of {sweep.max_trials} trials")
    if sweep.error:
        out.print(f"error      {sweep.error.message} [{sweep.error.reason}]")
    emit_table(
        ("run", "state", "score", *sweep.parameters),
        (
            (
                short(trial.run) + (" (best)" if trial.run == sweep.best_run else ""),
                trial.state,
                _score(trial.score),
                *(trial.parameters.get(name, "") for name in sweep.parameters),
            )
            # The best run is first whether more is better or less: the service knows which.
            for trial in sorted(sweep.trials, key=lambda trial: trial.run != sweep.best_run)
        ),
        "No trials yet.",
    )


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
