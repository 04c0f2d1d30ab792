"""`enxerto train`, `runs` and `base-models`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, percent, session, short

if TYPE_CHECKING:
    from enxerto.client import Run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command("base-models")(base_models)
    runs = typer.Typer(help="Training runs.", no_args_is_help=True)
    runs.command("list")(list_)
    runs.command()(show)
    runs.command()(watch)
    runs.command()(cancel)
    app.add_typer(runs, name="runs")


def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="The dataset, DATASET@N for an older snapshot.")],
    model: Annotated[
        str, typer.Option(help="Register the version under this model; the dataset's name by default.")
    ] = "",
    base_model: Annotated[
        str, typer.Option(help="Network to start from; see `enxerto base-models`.")
    ] = "efficientnet-lite0",
    weights: Annotated[str | None, typer.Option(help="PRETRAINED or NONE.")] = None,
    strategy: Annotated[str | None, typer.Option(help="FEATURE_EXTRACTION or FINE_TUNE.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all workers.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of the head.")] = None,
    backbone_learning_rate_ratio: Annotated[
        float | None, typer.Option(help="Backbone's learning rate divided by the head's.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Not negative.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="ADAMW or SGD.")] = None,
    warmup_fraction: Annotated[float | None, typer.Option(help="Share of the steps over which the rate rises.")] = None,
    unfreeze_stages: Annotated[
        int | None, typer.Option(help="FINE_TUNE: stages that learn, counted from the output; 0 means all.")
    ] = None,
    early_stopping_patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation loss before the run stops; 0 means never.")
    ] = None,
    augment: Annotated[bool | None, typer.Option(help="Random crops, flips and colour.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers that train together.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and do not watch it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a dataset and register the version. With --json, prints the events and at last the run."""
    from enxerto.cli.watching import follow

    settings: dict[str, Any] = {
        "weights": weights,
        "strategy": strategy,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "backbone_learning_rate_ratio": backbone_learning_rate_ratio,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "warmup_fraction": warmup_fraction,
        "unfreeze_stages": unfreeze_stages,
        "early_stopping_patience": early_stopping_patience,
        "augment": augment,
        "seed": seed,
        "num_workers": workers,
    }
    _check_choices(weights=weights, strategy=strategy, optimizer=optimizer)
    with session(context).client() as client:
        name = model or dataset.rpartition("/")[2].partition("@")[0]
        run = client.train(dataset, model=name, base_model=base_model, **settings)
        if not as_json:
            console().print(f"Started run {short(run.name)}.")
        if detach:
            _finish(run, as_json=as_json)
            return
        _finish(follow(client, run, as_json=as_json), as_json=as_json)


_CHOICES = {
    "weights": ("PRETRAINED", "NONE"),
    "strategy": ("FEATURE_EXTRACTION", "FINE_TUNE"),
    "optimizer": ("ADAMW", "SGD"),
}


def _check_choices(**chosen: str | None) -> None:
    for option, value in chosen.items():
        choices = _CHOICES[option]
        if value is not None and value.upper().replace("-", "_") not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=f"--{option}")


def _finish(run: "Run", *, as_json: bool) -> None:
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
    out.print(f"from       {short(run.base_model)}, weights {run.weights}, {run.strategy}")
    settings = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in run.settings.items()
    )
    out.print(f"settings   {settings}")
    if run.progress and not run.state.is_final:
        out.print(f"phase      {run.progress.phase}, epoch {run.progress.epoch} of {run.progress.epoch_count}")
    for metric in run.metrics:
        out.print(f"{metric.split:<6} {metric.name:<20} {metric.value:.4f}")
    if run.model_version:
        out.print(f"version    {short(run.model_version)}")
    if run.error:
        out.print(f"error      {run.error.message} [{run.error.reason}]", markup=False)
        for violation in run.error.violations:
            out.print(f"           {violation}", markup=False)


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
        ("run", "state", "data", "from", "weights", "accuracy", "version"),
        (
            (
                short(run.name),
                run.state,
                short(run.snapshot),
                short(run.base_model),
                run.weights,
                percent(run.metric("accuracy", "test") or run.metric("accuracy")),
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
    after_cursor: Annotated[int, typer.Option(help="Only what happened after this event.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Watch a run until it ends. With --json, prints the events and at last the run."""
    from enxerto.cli.watching import follow

    with session(context).client() as client:
        _finish(follow(client, client.run(run), as_json=as_json, after_cursor=after_cursor), as_json=as_json)


def cancel(context: typer.Context, run: str, as_json: JsonOption = False) -> None:
    """Ask a run to stop."""
    with session(context).client() as client:
        found = client.cancel(run)
    if as_json:
        emit_json(found)
    else:
        console().print(f"{short(found.name)} is {found.state}")


def base_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the networks that a run may start from."""
    with session(context).client() as client:
        found = list(client.base_models())
    if as_json:
        emit_json({"base_models": found})
        return
    emit_table(
        ("base model", "parameters", "features", "library", "works offline", "licence"),
        (
            (
                short(item.name),
                f"{item.parameter_count / 1e6:.1f} M",
                item.feature_dim,
                item.library,
                "yes" if item.offline else "",
                item.licence.partition(":")[0],
            )
            for item in found
        ),
        "No base models.",
    )
